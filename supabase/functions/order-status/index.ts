// Tells a signed-in customer how an order stands: `{"order": 1000}` gives `{"status": "shipped"}`.
// The caller's own token is passed on, so that row level security decides what is seen.
import { reply } from "../_shared/reply.ts";

Deno.serve(async (request: Request) => {
  const { order } = await request.json().catch(() => ({}));
  if (!/^[0-9]+$/.test(String(order ?? ""))) {
    return reply({ error: "`order` is not the number of an order" }, 400);
  }
  const url = `${Deno.env.get("SUPABASE_URL")}/rest/v1/orders?select=status&id=eq.${order}`;
  const headers = {
    apikey: Deno.env.get("SUPABASE_ANON_KEY") ?? "",
    authorization: request.headers.get("authorization") ?? "",
  };
  const answer = await fetch(url, { headers });
  const [found] = answer.ok ? await answer.json() : [];
  return found ? reply(found) : reply({ error: "no such order" }, 404);
});
