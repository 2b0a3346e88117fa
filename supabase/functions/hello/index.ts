// Greets a customer by name: `{"name": "Ada"}` gives `{"message": "Hello, Ada!"}`.
import { reply } from "../_shared/reply.ts";

Deno.serve(async (request: Request) => {
  const { name } = await request.json().catch(() => ({}));
  const message = `Hello, ${typeof name === "string" && name ? name : "stranger"}!`;
  return reply({ message });
});
