"""A counter and a log record on their way through a deployment: sent by OTLP, read back through the gateway."""

from __future__ import annotations

import json
import time
from urllib.parse import urlencode

from compose.deployment import Answer, Deployment

SERVICE = "compose-test"
_RESOURCE = {"attributes": [{"key": "service.name", "value": {"stringValue": SERVICE}}]}


def send_counter(deployment: Deployment, value: int, *, token: str | None) -> Answer:
    """Send the total of the counter ``compose.test.sent``."""
    now = time.time_ns()
    point = {"asInt": str(value), "startTimeUnixNano": str(now - 10**9), "timeUnixNano": str(now)}
    total = {"dataPoints": [point], "aggregationTemporality": 2, "isMonotonic": True}
    scope = {"metrics": [{"name": "compose.test.sent", "sum": total}]}
    body = {"resourceMetrics": [{"resource": _RESOURCE, "scopeMetrics": [scope]}]}
    return deployment.ask("OTLP_HTTP_PORT", "/v1/metrics", method="POST", token=token, body=json.dumps(body))


def send_record(deployment: Deployment, text: str, *, token: str | None) -> Answer:
    """Send a log record."""
    now = str(time.time_ns())
    record = {"timeUnixNano": now, "severityNumber": 9, "severityText": "INFO", "body": {"stringValue": text}}
    body = {"resourceLogs": [{"resource": _RESOURCE, "scopeLogs": [{"logRecords": [record]}]}]}
    return deployment.ask("OTLP_HTTP_PORT", "/v1/logs", method="POST", token=token, body=json.dumps(body))


def stored_total(deployment: Deployment, *, token: str) -> str | None:
    """The last stored total of the counter of the last hour."""
    query = urlencode({"query": f'last_over_time(compose_test_sent_total{{service_name="{SERVICE}"}}[1h])'})
    answer = deployment.ask("GATEWAY_PORT", f"/prometheus/api/v1/query?{query}", token=token)
    if answer.status != 200:
        return None
    result = json.loads(answer.body)["data"]["result"]
    return result[0]["value"][1] if result else None


def stored_texts(deployment: Deployment, *, token: str) -> list[str]:
    """The texts of the stored log records of the last hour, oldest first."""
    query = urlencode({"query": f'{{service_name="{SERVICE}"}}', "direction": "forward"})
    answer = deployment.ask("GATEWAY_PORT", f"/loki/loki/api/v1/query_range?{query}", token=token)
    if answer.status != 200:
        return []
    streams = json.loads(answer.body)["data"]["result"]
    return [text for _, text in sorted(value for stream in streams for value in stream["values"])]
