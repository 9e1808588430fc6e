"""Trees by RFC 6962: the reference's own vectors, and every path of every small tree against a root computed in the plainest way."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.security.merkle import (
    EMPTY_ROOT,
    Frontier,
    PathImpossible,
    inclusion_path,
    leaf_hash,
    root_of_path,
)

# The leaves and roots of Certificate Transparency's reference implementation of RFC 6962.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def plain_root(hashes: list[bytes]) -> bytes:
    """Return MTH of RFC 6962, section 2.1, word for word."""
    if not hashes:
        return sha256(b"").digest()
    if len(hashes) == 1:
        return hashes[0]
    split = 1
    while split * 2 < len(hashes):
        split *= 2
    return sha256(b"\1" + plain_root(hashes[:split]) + plain_root(hashes[split:])).digest()


def grown(hashes: list[bytes]) -> Frontier:
    frontier = Frontier()
    for one in hashes:
        frontier.append(one)
    return frontier


def numbered(count: int) -> list[bytes]:
    return [leaf_hash(b"%d" % number) for number in range(count)]


def test_the_roots_are_those_of_the_reference() -> None:
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT
    roots = []
    for leaf in LEAVES:
        frontier.append(leaf_hash(bytes.fromhex(leaf)))
        roots.append(frontier.root().hex())
    assert roots == ROOTS


def test_every_leaf_of_every_small_tree_is_proven_from_every_frontier_in_front_of_it() -> None:
    for size in range(1, 20):
        hashes = numbered(size)
        root = plain_root(hashes)
        for known in range(size):
            for index in range(known, size):
                path = inclusion_path(index, grown(hashes[:known]), hashes[known:])
                assert root_of_path(hashes[index], index, size, path) == root, (size, known, index)


@given(size=st.integers(1, 300), data=st.data())
def test_a_path_leads_to_the_root_for_its_own_leaf_and_place_only(size: int, data: st.DataObject) -> None:
    hashes = numbered(size)
    index = data.draw(st.integers(0, size - 1))
    root = grown(hashes).root()
    assert root == plain_root(hashes)
    path = inclusion_path(index, grown(hashes[:index]), hashes[index:])
    assert root_of_path(hashes[index], index, size, path) == root
    other = data.draw(st.integers(0, size - 1))
    if other != index:
        assert root_of_path(hashes[other], index, size, path) != root
        try:
            assert root_of_path(hashes[index], other, size, path) != root
        except PathImpossible:
            pass  # Paths of different places differ in length.
    if path:
        number = data.draw(st.integers(0, len(path) - 1))
        bit = data.draw(st.integers(0, 255))
        changed = [*path]
        changed[number] = bytes(
            byte ^ (1 << bit % 8 if place == bit // 8 else 0) for place, byte in enumerate(path[number])
        )
        assert root_of_path(hashes[index], index, size, changed) != root


@pytest.mark.parametrize("path_change", ["longer", "shorter"])
def test_a_path_of_another_length_is_refused(path_change: str) -> None:
    hashes = numbered(11)
    path = inclusion_path(3, Frontier(), hashes)
    wrong = [*path, path[-1]] if path_change == "longer" else path[:-1]
    with pytest.raises(PathImpossible, match="shorter" if path_change == "longer" else "longer"):
        root_of_path(hashes[3], 3, 11, wrong)


def test_a_frontier_goes_on_where_it_was() -> None:
    hashes = numbered(100)
    for known in range(100):
        before = grown(hashes[:known])
        again = Frontier(before.size, before.roots)
        for one in hashes[known:]:
            again.append(one)
        assert again.root() == plain_root(hashes)


@pytest.mark.parametrize(("size", "roots"), [(3, [b"x" * 32]), (1, [b"x"]), (-1, []), (0, [b"x" * 32])])
def test_a_frontier_that_is_none_is_refused(size: int, roots: list[bytes]) -> None:
    with pytest.raises(PathImpossible):
        Frontier(size, roots)


def test_a_leaf_outside_is_refused() -> None:
    with pytest.raises(PathImpossible, match="from 2 to 4, but found 5"):
        inclusion_path(5, grown(numbered(2)), numbered(3))
    with pytest.raises(PathImpossible, match="below 4"):
        root_of_path(b"", 4, 4, [])
