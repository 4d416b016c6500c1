"""What trading costs: commission and slippage of a fill, interest on what is borrowed."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import BrokerConfig

BPS = 1e-4
DAYS_A_YEAR = 365.0


def commission(quantity: float, price: float, *, bps: float, per_share: float, minimum: float) -> float:
    """Commission of one fill: max(minimum, quantity * price * bps / 10,000 + quantity * per_share)."""
    return max(minimum, quantity * price * bps * BPS + quantity * per_share)


def slipped(price: float, side: int, slippage_bps: float) -> float:
    """The price moved against the order by ``slippage_bps``: up for a buy (+1), down for a sell (-1)."""
    return price * (1.0 + side * slippage_bps * BPS)


def interest(amount: float, rate_pct: float, days: float) -> float:
    """Simple interest on a borrowed amount over calendar days: amount * rate / 100 * days / 365."""
    return amount * rate_pct / 100.0 * days / DAYS_A_YEAR


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The cost model of an account, flat floats."""

    commission_bps: float = 0.0
    commission_per_share: float = 0.0
    commission_minimum: float = 0.0
    slippage_bps: float = 0.0
    borrow_rate_pct: float = 0.0
    margin_rate_pct: float = 0.0

    @classmethod
    def of(cls, broker: BrokerConfig) -> Costs:
        """The costs that the run file's broker section names."""
        return cls(
            commission_bps=broker.commission.bps,
            commission_per_share=broker.commission.per_share,
            commission_minimum=broker.commission.minimum,
            slippage_bps=broker.slippage_bps,
            borrow_rate_pct=broker.borrow_rate_pct,
            margin_rate_pct=broker.margin_rate_pct,
        )

    def commission(self, quantity: float, price: float) -> float:
        """Commission of a fill, in account currency."""
        return commission(
            quantity,
            price,
            bps=self.commission_bps,
            per_share=self.commission_per_share,
            minimum=self.commission_minimum,
        )

    def unit_cost(self, price: float) -> float:
        """What one share costs to buy at ``price``, slippage and proportional commission included."""
        paid = slipped(price, 1, self.slippage_bps)
        return paid * (1.0 + self.commission_bps * BPS) + self.commission_per_share

    @property
    def round_trip_bps(self) -> float:
        """Proportional cost of an entry and its exit: twice commission and slippage, without minimum or per-share."""
        return 2.0 * (self.commission_bps + self.slippage_bps)
