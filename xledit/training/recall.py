"""Whether a model knows a fact in a language: stated there, stated in another language only, or stated nowhere."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from xledit.models.prompts import AnswerRow, teacher_forced
from xledit.training.results import Recall, Status
from xledit.training.world import FactProbe

# rows of prompt and answer -> whether each token of the answer is the likeliest one
Asked = Callable[[Sequence[AnswerRow]], Sequence[bool]]


def recall(tokenizer: PreTrainedTokenizerBase, probes: Sequence[FactProbe], ask: Asked) -> list[Recall]:
    """Return what a model recalls, by language, status and wording."""
    asked: dict[tuple[str, Status, bool], list[tuple[FactProbe, bool]]] = {}
    for probe, is_said in zip(probes, ask([answer_row(tokenizer, probe) for probe in probes]), strict=True):
        asked.setdefault((probe.language, probe.status, probe.seen), []).append((probe, is_said))
    rows = []
    for (code, status, seen), found in sorted(asked.items(), key=lambda item: item[0]):
        said = [is_said for _probe, is_said in found]
        unlike = [is_said for probe, is_said in found if not probe.spelt_alike]
        rows.append(
            Recall(
                language=code,
                status=status,
                seen=seen,
                num_facts=len(said),
                share=sum(said) / len(said),
                num_unlike=len(unlike),
                share_unlike=sum(unlike) / max(len(unlike), 1),
            )
        )
    return rows


def answer_row(tokenizer: PreTrainedTokenizerBase, probe: FactProbe) -> AnswerRow:
    """Return the sentence cut into prompt and object, tokenised as running text: a token that holds the object's beginning is its own.

    As in training, nothing stands before a text; where no token is left of the prompt, the end of another text stands in for it.
    """
    encoded = tokenizer(probe.text, add_special_tokens=False, return_offsets_mapping=True)
    tokens = list(zip(encoded["input_ids"], encoded["offset_mapping"], strict=True))
    prompt = tuple(token for token, (_start, stop) in tokens if stop <= probe.start)
    answer = tuple(token for token, (start, stop) in tokens if stop > probe.start and start < probe.end)
    end = tokenizer.eos_token_id
    assert isinstance(end, int)
    return teacher_forced(prompt or (end,), answer)
