"""LxmertTokenizer: BERT's WordPiece tokenizer on the `tokenizers` library, called as in transformers.

LXMERT splits sentences as BERT does (paper, section 2.1). Results equal those of transformers 5's
`LxmertTokenizer`; what that accepts and ignores or mends in silence (a vocabulary without special tokens,
truncation without a length, ...) is an error here. docs/tokenizer.md has the table.
"""

from lxmert.tokenization.encoding import BatchEncoding
from lxmert.tokenization.tokenizer import LxmertTokenizer, LxmertTokenizerFast

__all__ = ["BatchEncoding", "LxmertTokenizer", "LxmertTokenizerFast"]
