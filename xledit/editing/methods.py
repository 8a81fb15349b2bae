"""All methods of editing, by the tag that ``methods`` in params.yaml gives: closed forms, training, text before the prompt."""

from xledit.editing.incontext import Ike
from xledit.editing.solvers import Method
from xledit.editing.tuning import FineTuning, Lora

AnyMethod = Method | FineTuning | Lora | Ike
