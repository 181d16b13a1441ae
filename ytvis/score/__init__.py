"""Scores of results files: average precision, tracking metrics, bootstrap intervals, groups of objects.

from ytvis.score import evaluate_results
print(evaluate_results("annotations/valid.json", "results.json").stats)
"""

from ytvis.score.ap import YTVOSeval, evaluate_results
from ytvis.score.ytvos import YTVOS

__all__ = ["YTVOS", "YTVOSeval", "evaluate_results"]
