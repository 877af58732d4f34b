"""One page to ask a model on, and to see why it answers so: served on this machine, or written as a file."""

from lxmert.serve.gallery import Entry, Gallery
from lxmert.serve.page import every_way, write_static
from lxmert.serve.server import Server
from lxmert.serve.service import Asked, Service

__all__ = ["Asked", "Entry", "Gallery", "Server", "Service", "every_way", "write_static"]
