"""Estimates with intervals, on scipy: what claims about trends and differences are judged by.

A sample has one value for each independent observation, which here is a prompt: cells, neurons and
tokens of one run are not independent of each other. So labelled values are taken over their
dimension ``prompt``, unless ``over=`` names others, and an array of several axes is refused.

NaN means absent: what is absent in the data takes no part, and is absent in the result. What the
data cannot decide, for want of values or of spread, has no interval and no p value, and says why.
"""

from microtome.stats.corrections import (
    CORRECTIONS,
    benjamini_hochberg,
    bonferroni,
    corrected,
    holm,
)
from microtome.stats.estimates import (
    Estimate,
    correlation,
    groups_differ,
    larger,
    mean,
    share,
    trend,
)
from microtome.stats.maps import MapTest, max_statistic
from microtome.stats.paired import Difference, paired_t, wilcoxon
from microtome.stats.resampling import Interval, bootstrap
from microtome.stats.samples import CONFIDENCE, LEVEL

__all__ = [
    "CONFIDENCE",
    "CORRECTIONS",
    "LEVEL",
    "Difference",
    "Estimate",
    "Interval",
    "MapTest",
    "benjamini_hochberg",
    "bonferroni",
    "bootstrap",
    "corrected",
    "correlation",
    "groups_differ",
    "holm",
    "larger",
    "max_statistic",
    "mean",
    "paired_t",
    "share",
    "trend",
    "wilcoxon",
]
