// OpenTelemetry for the gateway, with official packages only: where to is said by the usual OTEL_* variables.
"use strict";

const { registerInstrumentations } = require("@opentelemetry/instrumentation");
const { HttpInstrumentation } = require("@opentelemetry/instrumentation-http");
const { OTLPTraceExporter } = require("@opentelemetry/exporter-trace-otlp-proto");
const { envDetector, defaultResource, detectResources } = require("@opentelemetry/resources");
const { BatchSpanProcessor, NodeTracerProvider } = require("@opentelemetry/sdk-trace-node");

const provider = new NodeTracerProvider({
  resource: defaultResource().merge(detectResources({ detectors: [envDetector] })),
  spanProcessors: [new BatchSpanProcessor(new OTLPTraceExporter())],
});
provider.register(); // trace context and baggage are propagated by default
registerInstrumentations({ instrumentations: [new HttpInstrumentation()] });

process.once("SIGTERM", () => provider.shutdown().finally(() => process.exit(0)));
