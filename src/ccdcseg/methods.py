"""The one list of methods that can be trained, with where each comes from. Imports nothing slow."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A method: how it is called and where it comes from.

    Attributes:
        name: on the command line and in ``run.json``.
        title: in tables.
        trainer: nnU-Net trainer class.
        builder: ``module:Class`` of the loss or the network; empty for plain nnU-Net.
        source: authors, venue, year and identifier.
        licence: of the public code, and what was taken from it.
        deviation: from the paper and from the released code.
        variant_of: the method whose settings it has; empty where it has its own.
        needs_unlabelled: whether it is defined with scans without masks alone.
    """

    name: str
    title: str
    trainer: str
    builder: str
    source: str
    licence: str
    deviation: str
    variant_of: str = ""
    needs_unlabelled: bool = False

    @property
    def section(self) -> str:
        """Of presets, with its settings; there is none for plain nnU-Net."""
        return self.variant_of or self.name

    @property
    def settings(self) -> str:
        """``module:Class`` of the settings, XSettings for XLoss and for a network X; empty where there are none."""
        return f"{self.builder.removesuffix('Loss')}Settings" if self.builder else ""


METHODS = {
    method.name: method
    for method in (
        Method(
            name="nnunet",
            title="nnU-Net",
            trainer="nnUNetTrainerPreset",
            builder="",
            source="Isensee et al., Nature Methods 18 (2021) 203, doi:10.1038/s41592-020-01008-z",
            licence="Apache-2.0; used as a dependency",
            deviation="none: cross-entropy and Dice, with the preset's network and schedule",
        ),
        Method(
            name="ccdc",
            title="CCDC",
            trainer="nnUNetTrainerCCDC",
            builder="ccdcseg.losses.ccdc.loss:CCDCLoss",
            source="Chen et al., Pattern Recognition 145 (2024) 109881, doi:10.1016/j.patcog.2023.109881",
            licence="no code published; written from the paper",
            deviation="the sign of the printed similarity; one term a negative pixel and the mean over queries, "
            "the printed form is a setting (docs/method.md)",
        ),
        Method(
            name="ccdc_both",
            title="CCDC on all scans",
            trainer="nnUNetTrainerCCDCBoth",
            builder="ccdcseg.losses.ccdc.loss:CCDCLoss",
            source="ours, after Chen et al., Pattern Recognition 145 (2024) 109881",
            licence="written from the paper",
            deviation="not the paper's: it also contrasts pixels of scans without masks, with labels that the "
            "network wrote; confidence and confusion are of annotated ones",
            variant_of="ccdc",
            needs_unlabelled=True,
        ),
        Method(
            name="focal",
            title="Focal",
            trainer="nnUNetTrainerFocal",
            builder="ccdcseg.losses.logits:FocalLoss",
            source="Lin et al., ICCV 2017, arXiv:1708.02002",
            licence="written from the paper",
            deviation="softmax over the classes instead of a sigmoid; no class weights (alpha)",
        ),
        Method(
            name="gdl",
            title="GDL",
            trainer="nnUNetTrainerGDL",
            builder="ccdcseg.losses.logits:GDLLoss",
            source="Sudre et al., DLMIA 2017, arXiv:1707.03237",
            licence="written from the paper",
            deviation="an absent class has the largest weight of the present ones instead of an infinite one",
        ),
        Method(
            name="topk",
            title="TopK",
            trainer="nnUNetTrainerTopK",
            builder="ccdcseg.losses.logits:TopKLoss",
            source="Fan et al., NIPS 2017, arXiv:1705.08826",
            licence="written from the paper",
            deviation="ignored pixels take no part, and k is at least one pixel",
        ),
        Method(
            name="mcc",
            title="MCC",
            trainer="nnUNetTrainerMCC",
            builder="ccdcseg.losses.logits:MCCLoss",
            source="Abhishek and Hamarneh, ISBI 2021, arXiv:2010.13454",
            licence="written from the paper",
            deviation="binary in the paper; here the mean of one-against-the-rest over the foreground classes",
        ),
        Method(
            name="reco",
            title="ReCo",
            trainer="nnUNetTrainerReCo",
            builder="ccdcseg.losses.reco:ReCoLoss",
            source="Liu et al., ICLR 2022, arXiv:2104.04465",
            licence="released code is non-commercial and was not used; written from formulas",
            deviation="a pointwise head without batch normalisation",
        ),
        Method(
            name="contrastive_seg",
            title="ContrastiveSeg",
            trainer="nnUNetTrainerContrastiveSeg",
            builder="ccdcseg.losses.contrastive_seg:ContrastiveSegLoss",
            source="Wang et al., ICCV 2021, arXiv:2101.11939",
            licence="released code is MIT; written from formulas",
            deviation="a pointwise head without batch normalisation; keys drawn from the memory at random; "
            "only keys that were written are used",
        ),
        Method(
            name="region_contrast",
            title="RegionContrast",
            trainer="nnUNetTrainerRegionContrast",
            builder="ccdcseg.losses.region_contrast:RegionContrastLoss",
            source="Hu et al., ICCV 2021",
            licence="released code is MIT; written from the paper's form",
            deviation="dot products and detached keys, as in the paper but not the released code; a pointwise head",
        ),
        Method(
            name="nnformer",
            title="nnFormer",
            trainer="nnUNetTrainerNNFormer",
            builder="ccdcseg.networks.nnformer:NNFormer",
            source="Zhou et al., IEEE TIP 32 (2023) 4036, doi:10.1109/TIP.2023.3293771, arXiv:2109.03201",
            licence="released code MIT; written from the paper, nothing taken from it",
            deviation="masks and position bias as described, not as in the code; the strides divide the patch",
        ),
    )
}
"""By name, in the order of tables."""
