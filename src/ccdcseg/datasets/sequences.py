"""Which images of a release can be converted; apart, so that the command line knows them without reading images."""

from enum import StrEnum


class ChaosSequence(StrEnum):
    """MR images of a CHAOS patient: T1-DUAL in phase and out of phase, T2-SPIR."""

    T1_IN = "t1-in"
    T1_OUT = "t1-out"
    T2 = "t2"


class CardiacSequence(StrEnum):
    """Images of an MS-CMRSeg patient: late gadolinium enhancement, T2-weighted, and cine (bSSFP)."""

    LGE = "lge"
    T2 = "t2"
    BSSFP = "bssfp"
