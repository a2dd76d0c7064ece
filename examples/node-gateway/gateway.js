// Passes requests on to a Python application, with one request id for both. Settings: PORT (0: any free one), UPSTREAM.
"use strict";

const { randomUUID } = require("node:crypto");
const http = require("node:http");
const { trace } = require("@opentelemetry/api");

const upstream = new URL(process.env.UPSTREAM ?? "http://127.0.0.1:8000");
const accepted = /^[A-Za-z0-9][A-Za-z0-9._~+/=:@-]{0,127}$/;

const server = http.createServer((request, response) => {
  const given = request.headers["x-request-id"];
  const id = accepted.test(given ?? "") ? given : randomUUID(); // test(undefined) would test "undefined"
  const { traceId } = trace.getActiveSpan()?.spanContext() ?? {};
  console.log(JSON.stringify({ event: "request", method: request.method, request_id: id, trace_id: traceId }));

  const passed = http.request(
    new URL(request.url, upstream),
    { method: request.method, headers: { ...request.headers, host: upstream.host, "x-request-id": id } },
    (answer) => {
      response.writeHead(answer.statusCode, { ...answer.headers, "x-request-id": id });
      answer.pipe(response);
    },
  );
  passed.on("error", () => {
    if (!response.headersSent) response.writeHead(502, { "x-request-id": id });
    response.end();
  });
  response.on("close", () => passed.destroy()); // who leaves here has left the application as well
  request.pipe(passed);
});

server.listen(Number(process.env.PORT ?? 8080), "127.0.0.1", () => {
  console.log(JSON.stringify({ event: "listening", port: server.address().port }));
});
