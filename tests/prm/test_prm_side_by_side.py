"""Attention of sequences laid side by side is that of each sequence alone."""

import pytest

torch = pytest.importorskip("torch")
from reasonflux_prm.prm.decoder import _attention  # noqa: E402
from reasonflux_prm.prm.side_by_side import attend, groups  # noqa: E402

CPU = torch.device("cpu")


@pytest.mark.parametrize("lengths", [[1], [7, 8, 8], [3, 50, 4, 4, 1], [5, 0, 6], [100, 99, 98, 40, 39, 2]])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_equals_one_call_a_sequence(lengths, kv_heads, dtype):
    torch.manual_seed(0)
    starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    q, k, v = (torch.randn(starts[-1], heads, 8).to(dtype) for heads in (4, kv_heads, kv_heads))
    found = attend(q, k, v, groups(starts, CPU))
    spans = [slice(a, a + n) for a, n in zip(starts, lengths, strict=False) if n]
    wanted = torch.cat([_attention(q[s], k[s], v[s], None) for s in spans])
    torch.testing.assert_close(found, wanted, atol=1e-5 if dtype == torch.float32 else 2e-2, rtol=1e-3)


def test_groups_are_few_and_little_is_filled_up():
    lengths = sorted([100 + n % 60 for n in range(200)])
    starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    found = groups(starts, CPU)
    assert [group.start for group in found] + [starts[-1]] == [0, *(group.stop for group in found)]
    assert len(found) <= 3
    assert sum(group.rows.numel() for group in found) <= 1.25 * starts[-1]
