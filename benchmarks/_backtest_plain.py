"""The baseline of ``backtest.py``: what one writes first, json.loads and counts in dictionaries, a rate at the end."""

import json
import sys
from collections import Counter, defaultdict

counts: dict[str, Counter[str]] = defaultdict(Counter)
with open(sys.argv[1], encoding="utf-8") as lines:  # noqa: PTH123 - as one writes it first
    for text in lines:
        line = json.loads(text)
        if line["topic"] == "mail.delivery.results":
            frame = line["value"]
            for result in frame["results"]:
                counts[frame["campaign"]][result["outcome"]] += 1
print(json.dumps({name: {"results": sum(one.values()), **one} for name, one in counts.items()}))
