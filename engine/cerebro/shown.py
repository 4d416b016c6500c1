"""backtrader's order objects, made and copied without its generic machinery.

Its constructor walks metaclasses and works out an end of session that nothing here reads; its ``clone`` goes through
``copy``. Together they took most of the time of an order. Tests hold both to what backtrader makes.
"""

from __future__ import annotations

from typing import Any

import backtrader as bt
from backtrader.order import OrderData
from backtrader.utils import AutoOrderedDict

_DEFAULTS: dict[str, Any] = dict(bt.Order.params._getitems())


def shown_order(family: type[Any], **values: Any) -> Any:
    """What ``family(**values)`` gives, for a ``bt.BuyOrder`` or ``bt.SellOrder`` that does not trail.

    ``valid`` stays as it was given, and ``dteos`` is 0.
    """
    shown = object.__new__(family)
    params = object.__new__(family.params)
    params.__dict__.update(_DEFAULTS | values)
    data, price, plimit = values["data"], values["price"], values["pricelimit"]
    size = -values["size"] if family is bt.SellOrder else values["size"]
    close = data.close[0]
    shown.__dict__.update(
        params=params,
        p=params,
        ref=next(bt.Order.refbasis),
        broker=None,
        info=AutoOrderedDict(),
        comminfo=None,
        triggered=False,
        _active=values["parent"] is None,
        status=bt.Order.Created,
        _plimit=plimit,
        created=OrderData(
            dt=data.datetime[0],
            size=size,
            price=price if price or plimit else close,
            pricelimit=plimit,
            pclose=close,
            trailamount=None,
            trailpercent=None,
        ),
        _limitoffset=0.0,
        executed=OrderData(remsize=size),
        position=0,
        dteos=0.0,
    )
    if family is bt.SellOrder:
        shown.size = size
    return shown


def snapshot(shown: Any) -> Any:
    """What ``shown.clone()`` gives: the order as it is now, whatever becomes of it."""
    executed = shown.executed
    executed.markpending()
    copies = [object.__new__(type(executed)), object.__new__(type(shown))]
    for copied, original in zip(copies, (executed, shown), strict=True):
        copied.__dict__.update(original.__dict__)
    copies[1].executed = copies[0]
    return copies[1]
