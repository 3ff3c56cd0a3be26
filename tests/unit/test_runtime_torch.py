"""The torch runtime's batch sizes; what needs PyTorch itself is in its contract."""

from hypothesis import given
from hypothesis import strategies as st

from retinue.runtimes._torch_execute import padded

SIZES = st.integers(1, 5000)


@given(SIZES, SIZES, SIZES)
def test_a_batch_is_padded_by_at_most_half_of_itself(count: int, one: int, other: int) -> None:
    smallest, largest = sorted((one, other))
    count = min(count, largest)
    size = padded(count, smallest, largest)
    assert max(count, smallest) <= size <= largest
    if count >= smallest:
        assert size <= max(1.5 * count, count + 1)


def test_few_sizes_are_captured() -> None:
    sizes = [padded(count, 1, 64) for count in range(1, 65)]
    assert sorted(set(sizes)) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    assert padded(35, 1, 40) == 40
