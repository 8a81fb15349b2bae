"""In-context editing: no weight changes; examples of new facts, and the new fact itself, are put before each prompt."""

from collections.abc import Mapping, Sequence

from xledit.editing.artifacts import SavedEdit
from xledit.editing.method import Inputs, Method, Watching
from xledit.languages import language
from xledit.records import Demonstration, EditRequest


class Ike(Method, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """IKE, arXiv 2305.12740: ``demonstrations`` examples in the edit's language, then the new fact, then the prompt.

    More ``demonstrations``: the model sees better what a new fact changes and what it does not, and each prompt takes longer; 0 shows the
    new fact alone. The paper retrieves 32 examples for each fact from its training facts; ours are the same for all facts, so that the
    model reads them once.
    """

    demonstrations: int = 8

    def __post_init__(self) -> None:
        if self.demonstrations < 0:
            raise ValueError(f"demonstrations is {self.demonstrations}; it must be at least 0")

    def edit(self, inputs: Inputs, watching: Watching) -> SavedEdit:
        """Return the text to put before each fact's probes. No weight changes, so there is nothing to watch."""
        asked = [request for requests in inputs.requests.values() for request in requests]
        return SavedEdit({}, self.contexts(asked, inputs.load_demonstrations()))

    def contexts(self, requests: Sequence[EditRequest], demonstrations: Mapping[str, Sequence[Demonstration]]) -> dict[str, str]:
        """Return by ``fact_id`` the text to put before a probe about the fact; the probe's label and prompt follow it.

        First come the first ``demonstrations`` of each language of the edit, the same for all facts, then the new fact in each of these
        languages. ``demonstrations`` are by language; languages come in the order of the requests.

        Raises ValueError when a language has fewer demonstrations than the setting asks for, or a fact is not given exactly once in each
        language.
        """
        facts: dict[str, dict[str, EditRequest]] = {}
        for request in requests:
            worded = facts.setdefault(request.fact_id, {})
            if request.language in worded:
                raise ValueError(f"fact {request.fact_id} ({request.language}) is there twice; a context tells each fact once per language")
            worded[request.language] = request
        codes = tuple(dict.fromkeys(request.language for request in requests))
        examples = "".join(self._examples(code, demonstrations.get(code, ())) for code in codes)
        return {fact_id: examples + "".join(_told(fact_id, worded, code) for code in codes) for fact_id, worded in facts.items()}

    def _examples(self, code: str, prepared: Sequence[Demonstration]) -> str:
        if len(prepared) < self.demonstrations:
            raise ValueError(
                f"demonstrations is {self.demonstrations}, but only {len(prepared)} are prepared in {code!r}; "
                "raise data.demonstrations or show fewer"
            )
        row = language(code)
        return "".join(
            f"{row.new_fact_label}{shown.new_fact}\n{row.prompt_label}{row.sentence(shown.prompt, shown.answer)}\n\n"
            for shown in prepared[: self.demonstrations]
        )


def _told(fact_id: str, worded: Mapping[str, EditRequest], code: str) -> str:
    """Return the line that states a fact in one language."""
    if code not in worded:
        raise ValueError(f"fact {fact_id} has no request in {code!r}, as other facts of the edit have; give it one or leave the fact out")
    row, request = language(code), worded[code]
    return f"{row.new_fact_label}{row.sentence(request.prompt, request.target_new)}\n"
