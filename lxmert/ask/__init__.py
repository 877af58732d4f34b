"""Asking a trained model about pictures: `Asker`, and `python -m lxmert.ask`."""

from lxmert.ask.asker import Asker
from lxmert.ask.batches import batch_of
from lxmert.ask.opening import open_checkpoint
from lxmert.ask.options import add_sources, sources_of
from lxmert.ask.replies import Guess, Reply
from lxmert.ask.seeing import Eyes, Seen

__all__ = ["Asker", "Eyes", "Guess", "Reply", "Seen", "add_sources", "batch_of", "open_checkpoint", "sources_of"]
