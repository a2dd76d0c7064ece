"""What a call cost: the provider's own figure, or its usage times a price."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from stagelight import cost
from stagelight._guard import quietly
from stagelight.cost.names import states_cost
from stagelight.facts import Cost, Priced, Request, Response, Unpriced, Usage

__all__ = ["NO_USAGE", "price_of", "stated_price"]

NO_USAGE: Cost = Unpriced(reason="no_usage")


def stated_price(amount: Decimal) -> Cost:
    """The cost that a provider or gateway stated, in USD."""
    return Priced(
        amount=amount, components={"requests": amount}, status="exact", price_source="provider", source="provider"
    )


def price_of(
    usage: Usage | None, request: Request, response: Response | None, *, at: float, hosts: Mapping[str, str]
) -> Cost | None:
    """The cost of a call by what is known of it.

    Args:
        usage: billable quantities; ``None`` when nobody told them.
        request: what was asked.
        response: what came back.
        at: time of the call in unix seconds.
        hosts: servers whose provider the user has told (``STAGELIGHT_PROVIDER_HOSTS``).

    Returns:
        ``None`` when there is neither usage nor an amount.
    """
    provider = request.provider
    if response is not None and response.stated_cost is not None and states_cost(provider):
        return stated_price(response.stated_cost)
    if usage is None:
        return None
    # A proxy that is known to forward to the provider.
    address, port = request.server_address, request.server_port or 443
    told = bool(hosts) and (address in hosts or f"{address}:{port}" in hosts)
    tier = response.service_tier if response is not None else None
    model = response.model if response is not None else None

    def price() -> Cost:
        return cost.price(
            usage,
            provider=provider,
            request_model=request.model,
            response_model=model,
            operation=request.operation,
            service_tier=tier or request.service_tier,
            at=at,
            server_address=None if told else address,
        )

    return quietly("price", price, NO_USAGE)
