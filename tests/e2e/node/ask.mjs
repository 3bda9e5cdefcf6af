// Asks a server with Node's own fetch: ask.mjs BASE_URL REQUESTS, as python/ask.py does; `leave` aborts.

const [base, requests] = [process.argv[2], JSON.parse(process.argv[3])];
const now = () => Number(process.hrtime.bigint());

for (const wanted of requests) {
  const seen = { id: wanted.id, status: null, error: null, chunks: [], body: '', sent_ns: now() };
  const controller = new AbortController();
  try {
    const answer = await fetch(base + wanted.path, {
      method: 'POST',
      headers: { 'content-type': 'application/json', 'x-request-id': wanted.id, ...wanted.headers },
      body: JSON.stringify(wanted.body),
      signal: controller.signal,
    });
    seen.status = answer.status;
    seen.header_ns = now();
    for await (const chunk of answer.body) {
      seen.body += Buffer.from(chunk).toString('latin1');
      seen.chunks.push([now(), seen.body.length]);
      if (wanted.leave && seen.body.split(wanted.leave.text).length > wanted.leave.count) {
        controller.abort();
      }
    }
  } catch (problem) {
    seen.error = String(problem);
  }
  seen.end_ns = now();
  console.log(JSON.stringify(seen));
}
