"""Probing sets without training: `python -m lxmert.probe`."""

from lxmert.probe.probing import WAYS, Probed, probe, summary

__all__ = ["WAYS", "Probed", "probe", "summary"]
