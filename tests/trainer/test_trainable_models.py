"""The architectures that the command line knows are those of the trainer's transformers."""

import pytest

from flashrun.api.trainable_models import ARCHITECTURES


@pytest.mark.trainer
@pytest.mark.filterwarnings("default")
def test_the_architectures_are_the_classes_of_transformers_that_generate_text() -> None:
    from transformers.models.auto import modeling_auto

    classes: set[str] = set()
    for mapping in (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    ):
        for names in mapping.values():
            classes |= {names} if isinstance(names, str) else set(names)
    assert classes == ARCHITECTURES
