"""Writing a text store row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from datamodules.stores.texts import ExampleWriter, write_examples
from lxmert.files import InputError

CHUNK = 20_000  # examples written at once


class Rows:
    """Collects the examples of a store and appends them some thousand at a time; made by `writing_rows`."""

    def __init__(
        self, writer: ExampleWriter, groups: Sequence[str], annotated: bool, numbers: Mapping[str, int]
    ) -> None:
        self._writer, self._groups, self._annotated, self._numbers = writer, groups, annotated, numbers
        self._rows: list[tuple] = []

    def __len__(self) -> int:
        return self._writer.count + len(self._rows)

    @property
    def images(self) -> set[str]:
        """The images of all examples; complete once the store is written."""
        return set(self._writer.tables["image"])

    def add(
        self,
        text: str,
        identifier: int | str,
        image: str,
        label: Mapping[str, float],
        groups: Sequence[str | None] = (),
        annotator_answers: Sequence[str] | None = None,
        numbers: Sequence[Sequence[float]] = (),
    ) -> None:
        """Add an example; `groups` and `numbers` in the order of the store's."""
        self._rows.append((text, identifier, image, label, groups, annotator_answers, numbers))
        if len(self._rows) >= CHUNK:
            self.flush()

    def flush(self) -> None:
        """Write what has been collected."""
        if not self._rows:
            return
        texts, ids, images, labels, groups, annotator_answers, numbers = zip(*self._rows, strict=True)
        columns = zip(*groups, strict=True) if self._groups else ()
        numerals = zip(*numbers, strict=True) if self._numbers else ()
        self._writer.append(
            texts=texts,
            ids=ids,
            images=images,
            labels=labels,
            groups=dict(zip(self._groups, columns, strict=True)),
            annotator_answers=annotator_answers if self._annotated else None,
            numbers=dict(zip(self._numbers, numerals, strict=True)),
        )
        self._rows.clear()

    def counts(self) -> dict[str, int]:
        """How many examples and images there are, once the store is written."""
        return {"examples": len(self), "images": len(self.images)}


@contextmanager
def writing_rows(
    store: Path,
    *,
    sources: Sequence[Path],
    groups: Sequence[str] = (),
    numbers: Mapping[str, int] | None = None,
    labelled: bool = True,
    annotated: bool = False,
    made_with: str = "",
) -> Iterator[Rows]:
    """Write a text store row by row, atomically; arguments as `write_examples`.

    Raises:
        InputError: there was no row.
        StoreError: the store cannot be written.
    """
    with write_examples(
        store,
        groups=groups,
        numbers=numbers,
        labelled=labelled,
        annotated=annotated,
        sources=sources,
        made_with=made_with,
    ) as writer:
        rows = Rows(writer, groups, annotated, numbers or {})
        yield rows
        rows.flush()
        if not writer.count:
            names = ", ".join(str(source) for source in sources)
            raise InputError(f"{store}: there is nothing to put into it in {names}. Are they the right files?")
