"""Small files in the layouts of the usual vendors. The bars are made up, the layouts are theirs."""

from __future__ import annotations

from dataclasses import dataclass, field

NEW_YORK = "America/New_York"


@dataclass(frozen=True)
class Sample:
    """A vendor's file, and what is in it: ends of all bars, the first bar, and how the prices are adjusted."""

    text: str
    ends: tuple[str, ...]
    first: tuple[float, ...]
    timeframe: str = "1d"
    symbol: str = "ACME"
    adjustment: str = "none"
    actions: tuple[tuple[str, float, float], ...] | None = None
    settings: dict = field(default_factory=dict)


DAILY = ("01-30 21:00", "01-31 21:00", "02-01 21:00")
FIVES = ("01-31 14:35", "01-31 14:40", "01-31 14:45")
FIRST = (10.5, 12.25, 9.75, 11.0, 1234567.0)

SAMPLES = {
    "yahoo": Sample(
        """Date,Open,High,Low,Close,Adj Close,Volume
2024-01-30,10.500000,12.250000,9.750000,11.000000,10.812346,1234567
2024-01-31,11.000000,12.000000,10.000000,11.500000,11.303816,2234567
2024-02-01,11.500000,12.500000,11.000000,12.000000,12.000000,3234567
""",
        DAILY,
        FIRST,
        adjustment="split",
    ),
    "yahoo until 2017": Sample(
        """Date,Open,High,Low,Close,Volume,Adj Close
2024-01-30,10.5,12.25,9.75,11.0,1234567,10.812346
2024-01-31,11.0,12.0,10.0,11.5,2234567,11.303816
2024-02-01,11.5,12.5,11.0,12.0,3234567,12.0
""",
        DAILY,
        FIRST,
    ),
    "yfinance history": Sample(
        """Date,Open,High,Low,Close,Volume,Dividends,Stock Splits
2024-01-30 00:00:00-05:00,10.5,12.25,9.75,11.0,1234567,0.0,0.0
2024-01-31 00:00:00-05:00,11.0,12.0,10.0,11.5,2234567,0.25,0.0
2024-02-01 00:00:00-05:00,11.5,12.5,11.0,12.0,3234567,0.0,4.0
""",
        DAILY,
        FIRST,
        adjustment="all",
        actions=(("01-31 21:00", 1.0, 0.25), ("02-01 21:00", 4.0, 0.0)),
    ),
    "yfinance history, not adjusted": Sample(
        """Date,Open,High,Low,Close,Adj Close,Volume,Dividends,Stock Splits
2024-01-30 00:00:00-05:00,10.5,12.25,9.75,11.0,10.8,1234567,0.0,0.0
2024-01-31 00:00:00-05:00,11.0,12.0,10.0,11.5,11.5,2234567,0.25,0.0
2024-02-01 00:00:00-05:00,11.5,12.5,11.0,12.0,12.0,3234567,0.0,0.0
""",
        DAILY,
        FIRST,
        adjustment="split",
        actions=(("01-31 21:00", 1.0, 0.25),),
    ),
    "yfinance download": Sample(
        """Price,Close,High,Low,Open,Volume
Ticker,ACME,ACME,ACME,ACME,ACME
Date,,,,,
2024-01-30,11.0,12.25,9.75,10.5,1234567
2024-01-31,11.5,12.0,10.0,11.0,2234567
2024-02-01,12.0,12.5,11.0,11.5,3234567
""",
        DAILY,
        FIRST,
        adjustment="all",
    ),
    "yfinance, minutes": Sample(
        """Datetime,Open,High,Low,Close,Adj Close,Volume
2024-01-31 09:30:00-05:00,10.5,12.25,9.75,11.0,11.0,1234567
2024-01-31 09:35:00-05:00,11.0,12.0,10.0,11.5,11.5,2234567
2024-01-31 09:40:00-05:00,11.5,12.5,11.0,12.0,12.0,3234567
""",
        FIVES,
        FIRST,
        timeframe="5m",
        adjustment="split",
    ),
    "stooq": Sample(
        """Date,Open,High,Low,Close,Volume
2024-01-30,10.5,12.25,9.75,11,1234567
2024-01-31,11,12,10,11.5,2234567
2024-02-01,11.5,12.5,11,12,3234567
""",
        DAILY,
        FIRST,
    ),
    "stooq archive": Sample(
        """<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>
ACME.US,D,20240130,000000,10.5,12.25,9.75,11,1234567,0
ACME.US,D,20240131,000000,11,12,10,11.5,2234567,0
ACME.US,D,20240201,000000,11.5,12.5,11,12,3234567,0
""",
        DAILY,
        FIRST,
        symbol="ACME.US",
    ),
    "stooq archive, minutes": Sample(
        """<TICKER>,<PER>,<DATE>,<TIME>,<OPEN>,<HIGH>,<LOW>,<CLOSE>,<VOL>,<OPENINT>
ACME.US,5,20240131,093500,10.5,12.25,9.75,11,1234567,0
ACME.US,5,20240131,094000,11,12,10,11.5,2234567,0
ACME.US,5,20240131,094500,11.5,12.5,11,12,3234567,0
""",
        FIVES,
        FIRST,
        timeframe="5m",
        symbol="ACME.US",
        settings={"timezone": NEW_YORK},
    ),
    "alpha vantage": Sample(
        """timestamp,open,high,low,close,adjusted_close,volume,dividend_amount,split_coefficient
2024-02-01,11.5000,12.5000,11.0000,12.0000,12.0000,3234567,0.0000,1.0
2024-01-31,11.0000,12.0000,10.0000,11.5000,11.5000,2234567,0.2500,2.0
2024-01-30,10.5000,12.2500,9.7500,11.0000,5.3750,1234567,0.0000,1.0
""",
        DAILY,
        FIRST,
        actions=(("01-31 21:00", 2.0, 0.25),),
    ),
    "tiingo": Sample(
        """date,close,high,low,open,volume,adjClose,adjHigh,adjLow,adjOpen,adjVolume,divCash,splitFactor
2024-01-30T00:00:00.000Z,11.0,12.25,9.75,10.5,1234567,5.375,6.0,4.7,5.1,2469134,0.0,1.0
2024-01-31T00:00:00.000Z,11.5,12.0,10.0,11.0,2234567,11.5,12.0,10.0,11.0,2234567,0.25,2.0
2024-02-01T00:00:00.000Z,12.0,12.5,11.0,11.5,3234567,12.0,12.5,11.0,11.5,3234567,0.0,1.0
""",
        DAILY,
        FIRST,
        actions=(("01-31 21:00", 2.0, 0.25),),
    ),
    "nasdaq": Sample(
        """Date,Close/Last,Volume,Open,High,Low
02/01/2024,$12.00,3234567,$11.50,$12.50,$11.00
01/31/2024,$11.50,2234567,$11.00,$12.00,$10.00
01/30/2024,$11.00,1234567,$10.50,$12.25,$9.75
""",
        DAILY,
        FIRST,
    ),
    "investing.com": Sample(
        """\ufeff"Date","Price","Open","High","Low","Vol.","Change %"
"02/01/2024","1,012.00","1,011.50","1,012.50","1,011.00","3.23M","4.35%"
"01/31/2024","1,011.50","1,011.00","1,012.00","1,010.00","450.12K","4.55%"
"01/30/2024","1,011.00","1,010.50","1,012.25","1,009.75","1.13M","-0.50%"
""",
        DAILY,
        (1010.5, 1012.25, 1009.75, 1011.0, 1_130_000.0),
    ),
    "investing.com, months by name": Sample(
        """"Date","Price","Open","High","Low","Vol.","Change %"
"Feb 01, 2024","12.00","11.50","12.50","11.00","-","4.35%"
"Jan 31, 2024","11.50","11.00","12.00","10.00","1.2B","4.55%"
"Jan 30, 2024","11.00","10.50","12.25","9.75","1,234,567","-0.50%"
""",
        DAILY,
        FIRST,
        settings={"cleaning": {"missing_value": "repair"}},
    ),
    "polygon": Sample(
        """ticker,volume,open,close,high,low,window_start,transactions
ACME,1234567,10.5,11.0,12.25,9.75,1706711400000000000,52
ACME,2234567,11.0,11.5,12.0,10.0,1706711700000000000,61
ACME,3234567,11.5,12.0,12.5,11.0,1706712000000000000,70
""",
        FIVES,
        FIRST,
        timeframe="5m",
    ),
    "polygon, days": Sample(
        """ticker,volume,open,close,high,low,window_start,transactions
ACME,1234567,10.5,11.0,12.25,9.75,1706590800000000000,52
ACME,2234567,11.0,11.5,12.0,10.0,1706677200000000000,61
ACME,3234567,11.5,12.0,12.5,11.0,1706763600000000000,70
""",
        DAILY,
        FIRST,
    ),
    "alpaca": Sample(
        """symbol,timestamp,open,high,low,close,volume,trade_count,vwap
ACME,2024-01-31 14:30:00+00:00,10.5,12.25,9.75,11.0,1234567.0,52.0,10.9
ACME,2024-01-31 14:35:00+00:00,11.0,12.0,10.0,11.5,2234567.0,61.0,11.2
ACME,2024-01-31 14:40:00+00:00,11.5,12.5,11.0,12.0,3234567.0,70.0,11.8
""",
        FIVES,
        FIRST,
        timeframe="5m",
    ),
    "alpaca, days": Sample(
        """symbol,timestamp,open,high,low,close,volume,trade_count,vwap
ACME,2024-01-30 05:00:00+00:00,10.5,12.25,9.75,11.0,1234567.0,52.0,10.9
ACME,2024-01-31 05:00:00+00:00,11.0,12.0,10.0,11.5,2234567.0,61.0,11.2
ACME,2024-02-01 05:00:00+00:00,11.5,12.5,11.0,12.0,3234567.0,70.0,11.8
""",
        DAILY,
        FIRST,
    ),
    "kibot": Sample(
        """01/31/2024,09:30,10.5,12.25,9.75,11,1234567
01/31/2024,09:35,11,12,10,11.5,2234567
01/31/2024,09:40,11.5,12.5,11,12,3234567
""",
        FIVES,
        FIRST,
        timeframe="5m",
    ),
    "kibot, days": Sample(
        """01/30/2024,10.5,12.25,9.75,11,1234567
01/31/2024,11,12,10,11.5,2234567
02/01/2024,11.5,12.5,11,12,3234567
""",
        DAILY,
        FIRST,
    ),
    "firstrate": Sample(
        """2024-01-31 09:30:00,10.5,12.25,9.75,11,1234567
2024-01-31 09:35:00,11,12,10,11.5,2234567
2024-01-31 09:40:00,11.5,12.5,11,12,3234567
""",
        FIVES,
        FIRST,
        timeframe="5m",
    ),
    "firstrate with a header": Sample(
        """timestamp,open,high,low,close,volume
2024-01-31 09:30:00,10.5,12.25,9.75,11,1234567
2024-01-31 09:35:00,11,12,10,11.5,2234567
2024-01-31 09:40:00,11.5,12.5,11,12,3234567
""",
        FIVES,
        FIRST,
        timeframe="5m",
        settings={"stamp": "start", "timezone": NEW_YORK},
    ),
    "databento": Sample(
        """ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol
1706711400000000000,33,2,38,10500000000,12250000000,9750000000,11000000000,1234567,ACME
1706711700000000000,33,2,38,11000000000,12000000000,10000000000,11500000000,2234567,ACME
1706712000000000000,33,2,38,11500000000,12500000000,11000000000,12000000000,3234567,ACME
""",
        FIVES,
        FIRST,
        timeframe="5m",
    ),
    "databento, pretty": Sample(
        """ts_event,rtype,publisher_id,instrument_id,open,high,low,close,volume,symbol
2024-01-31T14:30:00.000000000Z,33,2,38,10.500000000,12.250000000,9.750000000,11.000000000,1234567,ACME
2024-01-31T14:35:00.000000000Z,33,2,38,11.000000000,12.000000000,10.000000000,11.500000000,2234567,ACME
2024-01-31T14:40:00.000000000Z,33,2,38,11.500000000,12.500000000,11.000000000,12.000000000,3234567,ACME
""",
        FIVES,
        FIRST,
        timeframe="5m",
    ),
    "backtrader": Sample(
        """Date,Open,High,Low,Close,Volume,OpenInterest
2024-01-30,10.50,12.25,9.75,11.00,1234567,0
2024-01-31,11.00,12.00,10.00,11.50,2234567,0
2024-02-01,11.50,12.50,11.00,12.00,3234567,0
""",
        DAILY,
        FIRST,
    ),
    "backtrader, minutes": Sample(
        """Date,Time,Open,High,Low,Close,Volume,OpenInterest
2024-01-31,09:35:00,10.50,12.25,9.75,11.00,1234567,0
2024-01-31,09:40:00,11.00,12.00,10.00,11.50,2234567,0
2024-01-31,09:45:00,11.50,12.50,11.00,12.00,3234567,0
""",
        FIVES,
        FIRST,
        timeframe="5m",
        settings={"timezone": NEW_YORK},
    ),
    "decimal commas": Sample(
        """Date;Open;High;Low;Close;Volume
2024-01-30;10,5;12,25;9,75;11;1234567
2024-01-31;11;12;10;11,5;2234567
2024-02-01;11,5;12,5;11;12;3234567
""",
        DAILY,
        FIRST,
    ),
    "tabs": Sample(
        "Date\tOpen\tHigh\tLow\tClose\tVolume\n"
        "30.01.2024\t10.5\t12.25\t9.75\t11\t1234567\n"
        "31.01.2024\t11\t12\t10\t11.5\t2234567\n"
        "01.02.2024\t11.5\t12.5\t11\t12\t3234567\n",
        DAILY,
        FIRST,
    ),
}
