"""Refuse a picture without coloured points: paper, axes and titles are white, grey or black."""

import sys

import numpy as np
from PIL import Image

LEAST = 0.02  # of the pixels

pixels = np.asarray(Image.open(sys.argv[1]).convert("RGB")).astype(int)
coloured = float((pixels.max(-1) - pixels.min(-1) > 30).mean())
if coloured < LEAST:
    sys.exit(
        f"{sys.argv[1]} must show points: at least {LEAST:.0%} of its pixels in colour, "
        f"got {coloured:.1%}"
    )
print(f"{sys.argv[1]}: {coloured:.1%} of the pixels in colour")
