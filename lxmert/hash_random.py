"""Counted randomness: numbers that depend on what they are for, not on what was drawn before.

Whether token t of a sentence is masked in epoch k is a hash of (seed, purpose, k, sentence, t). So the same
example gets the same mask on any number of processes and workers, and after a resume.
"""

from __future__ import annotations

import zlib

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def counted(seed: int, purpose: str, *keys: np.ndarray | int) -> np.ndarray:
    """uint64 hashes of (seed, purpose, *keys), independent of each other for any two different inputs.

    Args:
        seed: of the run.
        purpose: what the numbers are for; two purposes never share them.
        keys: integers or integer arrays, broadcast against each other.
    """
    start = np.array([seed, zlib.crc32(purpose.encode())], np.int64).view(np.uint64)
    state = _mix(_mix(start[:1]) ^ start[1:])
    for key in keys:
        # The product with an odd constant keeps neighbouring keys apart before they meet the state.
        state = _mix(state ^ (np.atleast_1d(np.asarray(key, np.int64)).view(np.uint64) * _GOLDEN))
    return state


def uniform(seed: int, purpose: str, *keys: np.ndarray | int) -> np.ndarray:
    """float64 numbers in [0, 1); arguments as for `counted`."""
    return (counted(seed, purpose, *keys) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def below(limit: np.ndarray | int, seed: int, purpose: str, *keys: np.ndarray | int) -> np.ndarray:
    """int64 numbers in [0, limit); the other arguments as for `counted`."""
    return (uniform(seed, purpose, *keys) * limit).astype(np.int64)


def key(purpose: str, *keys: np.ndarray | int) -> np.ndarray:
    """int64 keys that stand for several at once, to be handed on as one."""
    return counted(0, purpose, *keys).view(np.int64)


def _mix(state: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al., 2014): every bit of the input moves every bit of the output."""
    state = state + _GOLDEN
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return state ^ (state >> np.uint64(31))
