import pytest

from ccdcseg.errors import UserError
from ccdcseg.nnunet.preset import load_preset


def test_a_term_that_would_never_act_is_refused(tiny_run, workspace):
    training = load_preset(str(workspace.preset))[1].training
    steps = training.epochs * training.iterations_per_epoch
    tiny_run(changes=(f"ccdc.start_iteration={steps - 1}",))
    with pytest.raises(UserError, match=rf"(?s){steps} steps.*ccdc.start_iteration={steps // 2}"):
        tiny_run(changes=(f"ccdc.start_iteration={steps}",))


def test_the_start_of_another_method_does_not_matter(tiny_run):
    tiny_run("nnunet", changes=("ccdc.start_iteration=10000",))
    tiny_run("reco", changes=("ccdc.start_iteration=10000",))
