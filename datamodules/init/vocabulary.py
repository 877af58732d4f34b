"""A vocabulary of word pieces, made from the questions."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers.models import WordPiece

from lxmert.files import write_text

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
SIZE = 8000  # word pieces at most


def write_vocabulary(path: Path, texts: Iterable[str], size: int = SIZE) -> int:
    """Make vocab.txt of texts, split and lower-cased as `LxmertTokenizer` does by default.

    Every character of the texts is a piece, so that no word of theirs is unknown; the rest are the pairs of
    pieces that are most often neighbours (Wu et al., 2016).

    Args:
        path: the file.
        texts: sentences of any language.
        size: word pieces at most, as far as there are fewer characters.

    Returns:
        How many there are.
    """
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, special_tokens=SPECIAL_TOKENS, min_frequency=2, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    pieces = tokenizer.get_vocab()
    write_text(path, "".join(f"{piece}\n" for piece in sorted(pieces, key=pieces.__getitem__)))
    return len(pieces)
