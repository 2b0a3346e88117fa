// What every function answers with: JSON that no cache keeps.
export function reply(body: unknown, status = 200): Response {
  return Response.json(body, { status, headers: { "cache-control": "no-store" } });
}
