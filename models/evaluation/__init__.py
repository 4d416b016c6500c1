"""How good forecasts are: scores, tests and what stands out, always beside forecasts that know nothing."""

from models.evaluation.frames import FORECAST_COLUMNS, forecast_frame, score_frame
from models.evaluation.judgement import alarms, judge
from models.evaluation.scores import score

__all__ = ["FORECAST_COLUMNS", "alarms", "forecast_frame", "judge", "score", "score_frame"]
