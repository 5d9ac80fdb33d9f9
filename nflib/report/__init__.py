"""What notebooks show: the tidy frame, five shapes of pictures, tables, claims, and the published numbers."""

from nflib.report.figures import COLOURS, Picture, bars, colours, curve, heatmap, ladder, panels, scatter
from nflib.report.frame import arrays, measured, metrics, ordered, paired, rank_correlation, spearman, stored
from nflib.report.show import claim, head, page, say, show, span

__all__ = [
    *("COLOURS", "Picture", "bars", "colours", "curve", "head", "heatmap", "ladder", "panels", "scatter"),
    *("arrays", "measured", "metrics", "ordered", "paired", "rank_correlation", "spearman", "stored"),
    *("claim", "page", "say", "show", "span"),
]
