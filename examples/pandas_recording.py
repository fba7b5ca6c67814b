"""A recording in pandas: one row per score, times as times, figures per minute.

pandas is no part of Undertone: pip install pandas. (Without it: clients.reading reads a recording
row by row, and undertone plot draws it.)

Usage: python examples/pandas_recording.py session.csv|session.jsonl|session.parquet
"""

import sys
from pathlib import Path

try:
    import pandas as pd
except ImportError:
    sys.exit("this example needs pandas: pip install pandas")

path = Path(sys.argv[1])
if path.suffix == ".csv":
    frame = pd.read_csv(path)
elif path.suffix == ".jsonl":
    frame = pd.read_json(path, lines=True, convert_dates=False)
else:
    frame = pd.read_parquet(path)

frame["time"] = pd.to_datetime(frame["received_unix_s"], unit="s", utc=True)
frame["width"] = frame["high"] - frame["low"]
if not frame["trained"].all():
    print("UNTRAINED: random weights, these numbers mean nothing")

print(frame.groupby("stream")[["valence", "width", "latency_total_ms"]].describe().T.round(2))
per_minute = frame.set_index("time").groupby("stream")["valence"].resample("1min")
print(per_minute.agg(["mean", "min", "max", "count"]).round(2))
print(f"no value in {frame['valence'].isna().mean():.0%} of the scores")
