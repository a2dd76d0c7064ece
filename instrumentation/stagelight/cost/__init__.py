"""Cost of a call: usage x dated price -> ``Priced``, ``Partial`` or ``Unpriced`` with a reason; never a guess."""

from stagelight.cost.errors import PriceFileError
from stagelight.cost.inspection import Explanation, Listing, UnitPrice, explain, lookup
from stagelight.cost.pricing import configure, price

__all__ = ["Explanation", "Listing", "PriceFileError", "UnitPrice", "configure", "explain", "lookup", "price"]
