"""Every pod of ours meets the restricted Pod Security Standard, because no other one is let in."""

import pytest

from localcluster.chart import RUNS
from tests.e2e.conftest import SYSTEM, Product

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("namespace", [SYSTEM, RUNS])
def test_a_pod_that_is_not_restricted_is_refused(product: Product, namespace: str) -> None:
    plain = ("run", "plain", "--image=localhost/pause:1", "--dry-run=server", "-n", namespace)
    with pytest.raises(AssertionError, match='violates PodSecurity "restricted:latest"'):
        product.kubectl(*plain)
