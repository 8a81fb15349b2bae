"""Whether a model knows a fact in a language: told everywhere, here only, in another language only, or nowhere."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from xledit.models.prompts import AnswerRow, teacher_forced
from xledit.training.probes import FactProbe
from xledit.training.results import Recall, Wording

# rows of prompt and answer -> whether each token of the answer is the likeliest one
Asked = Callable[[Sequence[AnswerRow]], Sequence[bool]]


def recall(tokenizer: PreTrainedTokenizerBase, probes: Sequence[FactProbe], ask: Asked) -> list[Recall]:
    """Return what a model recalls, by language, where facts are told, wording and kind of name, beside its null.

    Facts told in one other language that spells the object alike are left out: the spelling may tell them.
    """
    probes = [probe for probe in probes if probe.told in ("everywhere", probe.language) or not probe.object_alike]
    groups: dict[tuple[str, str, Wording, bool], list[tuple[FactProbe, bool]]] = {}
    guesses: dict[tuple[str, str, Wording], list[bool]] = {}
    for probe, is_said in zip(probes, ask([answer_row(tokenizer, probe) for probe in probes]), strict=True):
        groups.setdefault((probe.language, probe.told, probe.wording, probe.names_alike), []).append((probe, is_said))
        if probe.told == "nowhere":
            guesses.setdefault((probe.language, probe.relation, probe.wording), []).append(is_said)
    return [
        Recall(
            language=language,
            told=told,
            wording=wording,
            names_alike=names_alike,
            num_facts=len(outcomes),
            share=sum(is_said for _probe, is_said in outcomes) / len(outcomes),
            null=_null([guesses.get((language, probe.relation, "known" if wording == "told" else wording)) for probe, _said in outcomes]),
        )
        for (language, told, wording, names_alike), outcomes in sorted(groups.items())
    ]


def _null(guesses: Sequence[list[bool] | None]) -> float | None:
    """Return the mean over facts of how often facts told nowhere of their relation are said; None where one relation has none."""
    shares = [sum(said) / len(said) for said in guesses if said]
    return sum(shares) / len(shares) if len(shares) == len(guesses) else None


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
