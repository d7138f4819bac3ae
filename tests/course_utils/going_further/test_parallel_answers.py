"""Answers to the exercises on many processes, wrong and right ones (chapter 11)."""

import pytest
import torch
import torch.nn.functional as F

from course_utils.going_further.parallel import checks
from course_utils.going_further.parallel import tensor_parallel as tp

pytestmark = pytest.mark.authors


def refused(check, answers, words):
    with pytest.raises(AssertionError, match=words):
        check(*answers if isinstance(answers, tuple) else (answers,))


# Who holds what

ROWS = ("W_q.weight", "W_k.weight", "W_v.weight", "fc1.weight", "fc1.bias")
COLUMNS = ("W_o.weight", "fc2.weight")


def sliced(rows=ROWS, columns=COLUMNS, part=None, divides=lambda heads, size: heads % size == 0):
    """`split_layer` with slices, and with other rules."""

    def split(whole, group, num_heads):
        if not divides(num_heads, group.size):
            raise ValueError("the heads cannot be shared")
        found = {}
        for name, tensor in whole.items():
            dim = 0 if name.endswith(rows) else 1 if name.endswith(columns) else None
            if dim is not None and tensor.size(dim) % group.size:
                raise ValueError("no equal parts")
            found[name] = tensor if dim is None else (part or tp.cut)(tensor, group, dim)
        return found

    return split


def every_nth(tensor, group, dim):
    places = torch.arange(group.rank, tensor.size(dim), group.size)
    return tensor.index_select(dim, places)


def backwards(tensor, group, dim):
    return tensor.chunk(group.size, dim)[group.size - 1 - group.rank]


def first_part(tensor, group, dim):
    return tensor.chunk(group.size, dim)[0]


def into_the_same_dict(whole, group, num_heads):
    whole.update(tp.split_layer(whole, group, num_heads))
    return whole


def without_cut(whole, group, num_heads):
    """Slices, and nobody asks whether the hidden units can be shared."""
    if num_heads % group.size:
        raise ValueError("heads")

    def part(tensor, group, dim):
        width = tensor.size(dim) // group.size
        return tensor.narrow(dim, group.rank * width, width)

    found = {}
    for name, tensor in whole.items():
        dim = 0 if name.endswith(ROWS) else 1 if name.endswith(COLUMNS) else None
        found[name] = tensor if dim is None else part(tensor, group, dim)
    return found


def in_what_came(whole, group, num_heads):
    found = {k: x.clone() for k, x in tp.split_layer(whole, group, num_heads).items()}
    whole["norm1.weight"].zero_()
    return found


KEPT = {}


def kept_by_sizes(whole, group, num_heads):
    found = tp.split_layer(whole, group, num_heads)
    key = (group.rank, group.size, num_heads, *(x.shape for x in whole.values()))
    return KEPT.setdefault(key, found)


def with_an_assert(whole, group, num_heads):
    assert num_heads % group.size == 0
    return tp.split_layer(whole, group, num_heads)


def parts_of(**changes):
    def split(whole, group, num_heads):
        found = tp.split_layer(whole, group, num_heads)
        return {name: changes.get(name.split(".")[-2], lambda x: x)(x) for name, x in found.items()}

    return split


SPLITS = [
    (lambda *_: None, "a dict"),
    (lambda w, g, h: {}, "missing: attention.W_k.weight, "),
    (lambda w, g, h: list(tp.split_layer(w, g, h).values()), "a dict"),
    (lambda w, g, h: dict(w), "a part of dimension 0"),
    (sliced(rows=ROWS[1:], columns=("W_q.weight", *COLUMNS)), "W_q.weight.*dimension 0"),
    (sliced(rows=("W_o.weight", *ROWS), columns=COLUMNS[1:]), "W_o.weight.*dimension 1"),
    (sliced(rows=("fc2.weight", *ROWS), columns=COLUMNS[:1]), "fc2.weight.*dimension 1"),
    (sliced(rows=COLUMNS + ROWS[4:], columns=ROWS[:4]), "dimension"),
    (sliced(rows=ROWS[:4]), "fc1.bias"),
    (sliced(rows=("fc2.bias", *ROWS)), "stays whole"),
    (sliced(rows=("bias", *ROWS)), "stays whole|needs it whole"),
    (sliced(rows=("norm1.weight", "norm2.weight", *ROWS)), "needs it whole"),
    (sliced(part=every_nth), "neighbours"),
    (sliced(part=backwards), "is the part of rank 1. Which part"),
    (sliced(part=first_part), "is the part of rank 0. Which part"),
    (sliced(divides=lambda heads, size: True), "heads.*ValueError"),
    (sliced(divides=lambda heads, size: heads >= size), "heads.*ValueError"),
    (sliced(divides=lambda heads, size: size % heads == 0), "raised ValueError"),
    (sliced(divides=lambda heads, size: heads // size > 1), "raised ValueError"),
    (with_an_assert, "ValueError"),
    (without_cut, "hidden units.*ValueError"),
    (into_the_same_dict, "changes the dict"),
    (in_what_came, "changes norm1.weight that came in"),
    (kept_by_sizes, "dtype|numbers"),
    (sliced(part=lambda x, g, dim: tp.cut(x, g, dim) if g.size < 8 else x), "of 8, a layer"),
    (parts_of(W_q=lambda x: x.float()), "dtype torch.float32"),
    (parts_of(W_o=lambda x: x.T), "W_o.weight has"),
    (parts_of(W_o=lambda x: x.half().to(x.dtype)), "other numbers"),
    (parts_of(fc2=lambda x: x / 2), "fc2"),
    (parts_of(norm1=lambda x: None), "norm1.* None"),
    (lambda w, g, h: {k.split(".", 1)[1]: x for k, x in tp.split_layer(w, g, h).items()}, "new"),
    (lambda w, g, h: dict.fromkeys(w, w["attention.W_x.weight"]), "raised KeyError"),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("answer", "words"), SPLITS)
def test_a_wrong_split(answer, words):
    refused(checks.check_split_layer, answer, words)


def by_name(whole, group, num_heads):
    """The names one by one, and copies in place of views."""
    if num_heads % group.size or whole["feed_forward.fc1.bias"].numel() % group.size:
        raise ValueError
    found = dict(whole)
    for name in ("W_q", "W_k", "W_v"):
        matrix = whole[f"attention.{name}.weight"]
        found[f"attention.{name}.weight"] = matrix.view(group.size, -1, matrix.size(1))[group.rank]
    units = whole["feed_forward.fc1.bias"].numel() // group.size
    mine = slice(group.rank * units, (group.rank + 1) * units)
    for name in ("fc1.weight", "fc1.bias"):
        found[f"feed_forward.{name}"] = whole[f"feed_forward.{name}"][mine].clone()
    found["feed_forward.fc2.weight"] = whole["feed_forward.fc2.weight"][:, mine].contiguous()
    found["attention.W_o.weight"] = torch.tensor_split(
        whole["attention.W_o.weight"], group.size, dim=1
    )[group.rank]
    return found


def by_heads(whole, group, num_heads):
    """Head by head, transposed and back."""
    if num_heads % group.size:
        raise ValueError(num_heads)
    found = dict(whole)
    for name, tensor in whole.items():
        if name.endswith(("W_q.weight", "W_k.weight", "W_v.weight")):
            heads = tensor.unflatten(0, (num_heads, -1)).chunk(group.size)[group.rank]
            found[name] = heads.flatten(0, 1)
        elif name.endswith(COLUMNS):
            found[name] = tp.cut(tensor.T, group, 0).T
        elif ".fc1." in name:
            found[name] = tp.cut(tensor, group, 0)
    return found


@pytest.mark.parametrize("answer", [sliced(), by_name, by_heads, sliced(part=tp.cut)])
def test_a_right_split(answer):
    assert "right" in checks.check_split_layer(answer)


# f and g


def regions(f=None, f_back=None, g=None, g_back=None):
    """copy_to and reduce_from with some of the four passes replaced."""

    class To(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, group):
            ctx.group = group
            return f(x, group) if f else x.view_as(x)

        @staticmethod
        def backward(ctx, gradient):
            if f_back:
                return f_back(gradient, ctx.group), None
            return ctx.group.all_reduce(gradient), None

    class From(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, group):
            ctx.group = group
            return g(x, group) if g else group.all_reduce(x)

        @staticmethod
        def backward(ctx, gradient):
            return g_back(gradient, ctx.group) if g_back else gradient, None

    return To.apply, From.apply


def dropped(x, group):
    """As if the all-reduce worked in place."""
    group.all_reduce(x)
    return x


class OneGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.group.all_reduce(gradient)


class NoGroup(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, group):
        return group.all_reduce(x)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.group.all_reduce(gradient), None


class Last(torch.autograd.Function):
    """The group is kept in the class, where the ranks overwrite each other's."""

    group = None

    @staticmethod
    def forward(ctx, x, group):
        Last.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return Last.group.all_reduce(gradient), None


def add_into(x, group):
    x += group.all_reduce(x) - x
    return x


RIGHT = regions()
REGIONS = [
    (regions(f_back=lambda x, group: x), "f adds up"),
    (regions(f=lambda x, group: group.all_reduce(x)), "f is the identity"),
    (regions(f=lambda x, group: x / group.size), "f is the identity"),
    (regions(f=lambda x, group: 2 * x), "f is the identity"),
    (regions(f_back=lambda x, group: group.all_reduce(x) / group.size), "as a mean"),
    (regions(f_back=lambda x, group: group.all_reduce(x) * group.size), "f adds up"),
    (regions(f_back=lambda x, group: group.all_reduce(x, "max")), "f adds up"),
    (regions(f_back=dropped), "new tensor"),
    (regions(f_back=lambda x, group: group.all_reduce(x) if x.any() else x), "all-reduces"),
    (regions(f_back=lambda x, group: None), "f adds up|is None"),
    (regions(f_back=lambda x, group: group.all_reduce(group.all_reduce(x))), "f adds up|times"),
    (regions(g=lambda x, group: x.clone()), "g is the sum"),
    (regions(g=lambda x, group: None), "None"),
    (regions(g=lambda x, group: group.all_reduce(x, "max")), "g is the sum"),
    (regions(g=lambda x, group: group.all_reduce(x) / group.size), "as a mean"),
    (regions(g=dropped), "new tensor"),
    (regions(g=add_into), "changes a tensor that came in|in-place|in place"),
    (regions(g=lambda x, group: group.all_reduce(x.float())), "dtype torch.float32"),
    (regions(g=lambda x, group: group.all_reduce(x).sum(0, keepdim=True)), "shape"),
    (regions(g_back=lambda x, group: group.all_reduce(x)), "times too large|g hands"),
    (regions(g_back=lambda x, group: x / group.size), "as a mean|g hands"),
    (regions(g_back=lambda x, group: x * group.size), "times too large|g hands"),
    (regions(g_back=lambda x, group: None), "is 0|None|g hands"),
    (regions(g_back=lambda x, group: group.all_reduce(x) / group.size), "all-reduces"),
    (
        regions(g=lambda x, g: g.all_reduce(x) if g.rank == 0 else x.clone()),
        "All ranks must",
    ),
    (
        regions(g=lambda x, g: g.all_reduce(g.all_reduce(x)) / g.size),
        "all-reduces",
    ),
    ((OneGradient.apply, RIGHT[1]), "one for each|None for `group`"),
    ((RIGHT[0], NoGroup.apply), "raised AttributeError at"),
    ((RIGHT[0], lambda x, group: group.all_reduce(x)), "no gradient"),
    ((lambda x, group: x.detach(), RIGHT[1]), "no gradient|f adds up"),
    ((Last.apply, RIGHT[1]), "another rank"),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("answers", "words"), REGIONS)
def test_wrong_regions(answers, words):
    refused(checks.check_regions, answers, words)


def with_a_hook(x, group):
    copied = x.view_as(x)
    if copied.requires_grad:
        copied.register_hook(group.all_reduce)
    return copied


def straight_through(x, group):
    return x + (group.all_reduce(x) - x.detach())


@pytest.mark.parametrize(
    "answers",
    [
        RIGHT,
        (with_a_hook, RIGHT[1]),
        (RIGHT[0], straight_through),
        regions(f=lambda x, group: x.clone(), g_back=lambda x, group: x.clone()),
        regions(f=lambda x, group: x, f_back=lambda x, group: group.all_reduce(x.contiguous())),
    ],
)
def test_right_regions(answers):
    assert "right" in checks.check_regions(*answers)


# A feed-forward block in parts


def block(
    f=tp.copy_to,
    g=tp.reduce_from,
    activation=torch.relu,
    first=lambda x, part: F.linear(x, part.fc1.weight, part.fc1.bias),
    second=lambda hidden, part: F.linear(hidden, part.fc2.weight),
    bias=lambda y, part, group: y + part.fc2.bias,
):
    """The block with some of its steps replaced."""

    def parallel_feed_forward(x, part, group):
        hidden = activation(first(f(x, group), part))
        return bias(g(second(hidden, part), group), part, group)

    return parallel_feed_forward


def plain(x, group):
    return x


def relu_late(x, part, group):
    hidden = F.linear(tp.copy_to(x, group), part.fc1.weight, part.fc1.bias)
    return tp.reduce_from(F.linear(hidden, part.fc2.weight), group).relu() + part.fc2.bias


def bias_of_rank_0(x, part, group):
    hidden = torch.relu(part.fc1(tp.copy_to(x, group)))
    mine = F.linear(hidden, part.fc2.weight)
    return tp.reduce_from(mine + part.fc2.bias if group.rank == 0 else mine, group)


def bias_shared(x, part, group):
    hidden = torch.relu(part.fc1(tp.copy_to(x, group)))
    return tp.reduce_from(F.linear(hidden, part.fc2.weight) + part.fc2.bias / group.size, group)


def reduced_twice(x, part, group):
    y = tp.parallel_feed_forward(x, part, group)
    return y + 0 * tp.reduce_from(x, group)


def hidden_reduced(x, part, group):
    hidden = torch.relu(tp.reduce_from(part.fc1(tp.copy_to(x, group)), group))
    return tp.reduce_from(F.linear(hidden, part.fc2.weight), group) + part.fc2.bias


def bias_taken_away(x, part, group):
    part.fc2.bias.data.zero_()
    return tp.reduce_from(part.fc2(torch.relu(part.fc1(tp.copy_to(x, group)))), group)


def x_changed(x, part, group):
    with torch.no_grad():
        x -= 0.5
    return tp.parallel_feed_forward(x, part, group)


BLOCKS = [
    (lambda *_: None, "gives None"),
    (relu_late, "fc1, ReLU and fc2"),
    (block(activation=lambda x: x), "ReLU is missing"),
    (block(activation=F.gelu), "fc1, ReLU and fc2"),
    (block(activation=torch.relu, f=plain), "copy_to"),
    (block(g=plain), "reduce_from"),
    (block(g=lambda x, group: group.all_reduce(x)), "passes none|gradient"),
    (block(f=tp.reduce_from), "copy_to"),
    (block(g=tp.copy_to), "reduce_from"),
    (block(second=lambda hidden, part: part.fc2(hidden), bias=lambda y, *_: y), "Add it once"),
    (block(second=lambda hidden, part: part.fc2(hidden)), "Add it once"),
    (block(bias=lambda y, *_: y), "fc2.bias is missing"),
    (block(bias=lambda y, part, group: y + part.fc2.bias / group.size), "bias"),
    (block(bias=lambda y, part, group: y + part.fc2.bias.detach()), "gradient of fc2.bias"),
    (block(first=lambda x, part: F.linear(x, part.fc1.weight)), "fc1.bias is missing"),
    (block(first=lambda x, part: F.linear(x, part.fc1.weight.data, part.fc1.bias)), "fc1.weight"),
    (block(second=lambda h, part: F.linear(h, part.fc2.weight.detach())), "fc2.weight"),
    (block(second=lambda h, part: h @ part.fc2.weight), "raised RuntimeError at"),
    (block(f=lambda x, group: tp.copy_to(x.detach(), group)), "gradient of x"),
    (bias_of_rank_0, "bias"),
    (bias_shared, "gradient of fc2.bias"),
    (reduced_twice, "all-reduces"),
    (hidden_reduced, "fc1, ReLU and fc2|all-reduces"),
    (bias_taken_away, "changes"),
    (x_changed, "changes a tensor that came in"),
    (lambda x, p, g: tp.parallel_feed_forward(x, p, g) if g.rank == 0 else x, "All ranks must"),
    (lambda x, p, g: x + tp.parallel_feed_forward(x, p, g), "fc1, ReLU and fc2"),
    (lambda x, p, g: tp.parallel_feed_forward(x.flatten(0, 1), p, g).view(x.shape), "raised|shape"),
    (lambda x, p, g: tp.parallel_feed_forward(x, p, g)[0], "shape|raised"),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("answer", "words"), BLOCKS)
def test_a_wrong_block(answer, words):
    refused(checks.check_parallel_feed_forward, answer, words)


def by_einsum(x, part, group):
    hidden = torch.einsum("...d,fd->...f", tp.copy_to(x, group), part.fc1.weight) + part.fc1.bias
    return tp.reduce_from(
        torch.einsum("...f,df->...d", hidden.clamp(min=0), part.fc2.weight), group
    ).add(part.fc2.bias)


def less_the_bias(x, part, group):
    mine = part.fc2(F.relu(part.fc1(tp.copy_to(x, group)))) - part.fc2.bias
    return tp.reduce_from(mine, group) + part.fc2.bias


def in_rows(x, part, group):
    rows = tp.copy_to(x.reshape(-1, x.size(-1)), group)
    hidden = torch.addmm(part.fc1.bias, rows, part.fc1.weight.T).relu_()
    return (tp.reduce_from(hidden.mm(part.fc2.weight.T), group) + part.fc2.bias).view_as(x)


@pytest.mark.parametrize("answer", [block(), by_einsum, less_the_bias, in_rows])
def test_a_right_block(answer):
    assert "right" in checks.check_parallel_feed_forward(answer)


# A loss without the logits


def loss(
    top=lambda part, group: group.all_reduce(part.amax(-1), "max"),
    add=tp.reduce_from,
    power=torch.exp,
    index=lambda targets, part, group: targets - group.rank * part.size(-1),
    mine=lambda index, width: (index >= 0) & (index < width),
    chosen=lambda found, mine: found.where(mine, 0.0),
    end=lambda total, top, chosen: (total.log() + top - chosen).mean(),
):
    """The loss with some of its steps replaced."""

    def cross_entropy(part, targets, group):
        width, most = part.size(-1), top(part, group)
        total = add(power(part - most[..., None]).sum(-1), group)
        where = index(targets, part, group)
        here = mine(where, width)
        found = part.gather(-1, where.clamp(0, width - 1)[..., None])[..., 0]
        return end(total, most, add(chosen(found, here), group))

    return cross_entropy


def gathered(part, targets, group):
    whole = tp.gathered(part.detach(), group)
    return F.cross_entropy(whole.flatten(0, -2), targets.flatten())


def gathered_with_gradient(part, targets, group):
    whole = part.new_zeros(*part.shape[:-1], group.size * part.size(-1))
    whole[..., group.rank * part.size(-1) :][..., : part.size(-1)] = part
    return F.cross_entropy(tp.reduce_from(whole, group).flatten(0, -2), targets.flatten())


def changes_targets(part, targets, group):
    targets -= group.rank * part.size(-1)
    return tp.cross_entropy(part, targets + group.rank * part.size(-1), group)


def first_targets(part, targets, group):
    return tp.cross_entropy(part.flatten(0, -2)[:32], targets.flatten()[:32], group)


def only_with_targets(part, targets, group):
    here = targets // part.size(-1) == group.rank
    logits = part.gather(-1, (targets % part.size(-1))[..., None])[..., 0].where(here, 0.0)
    top = group.all_reduce(part.amax(dim=-1), "max")
    total = tp.reduce_from(torch.exp(part - top[..., None]).sum(dim=-1), group)
    chosen = tp.reduce_from(logits, group) if here.any() else 0.0
    return (total.log() + top - chosen).mean()


def whole_maximum(part, group):
    return group.all_reduce(part.amax(), "max").expand(part.shape[:-1])


LOSSES = [
    (loss(top=lambda part, group: part.amax(-1)), "own maximum"),
    (loss(top=lambda part, group: part.new_zeros(part.shape[:-1])), "largest logit of \\*all\\*"),
    (loss(top=whole_maximum), "row"),
    (loss(top=lambda part, group: group.all_reduce(part.amax(-1))), "."),
    (loss(end=lambda total, top, chosen: (total.log() + top - chosen).sum()), "mean"),
    (loss(end=lambda total, top, chosen: (total.log() - chosen).mean()), "maximum.*added again"),
    (loss(end=lambda total, top, chosen: (total + top - chosen).mean()), "log"),
    (loss(end=lambda total, top, chosen: (chosen - top - total.log()).mean()), "sign"),
    (loss(end=lambda total, top, chosen: (total.log2() + top - chosen).mean()), "log"),
    (loss(end=lambda total, top, chosen: (total.log() + top - chosen).mean(0)), "gives shape"),
    (loss(end=lambda total, top, chosen: (total.log() + top - chosen).mean().item()), "a float"),
    (
        loss(chosen=lambda found, mine: found),
        "which one rank has|at its own targets|rank that has it|one before the next",
    ),
    (
        loss(chosen=lambda found, mine: found.where(mine, -1e9)),
        "which one rank has|at its own targets|rank that has it|one before the next",
    ),
    (
        loss(mine=lambda index, width: (index >= 0) & (index <= width)),
        "which one rank has|at its own targets|rank that has it|one before the next",
    ),
    (
        loss(mine=lambda index, width: (index > 0) & (index < width)),
        "which one rank has|at its own targets|rank that has it|one before the next",
    ),
    (
        loss(mine=lambda index, width: index < width),
        "which one rank has|at its own targets|rank that has it|one before the next",
    ),
    (
        loss(mine=lambda index, width: index >= 0),
        "which one rank has|at its own targets|rank that has it|one before the next",
    ),
    (
        loss(index=lambda targets, part, group: targets),
        "which one rank has|at its own targets|rank that has it|one before the next",
    ),
    (
        loss(index=lambda t, part, group: t % part.size(-1)),
        "which one rank has|at its own targets|rank that has it|one before the next",
    ),
    (
        loss(index=lambda t, part, group: t - group.rank * group.size),
        "which one rank has|at its own targets|rank that has it|one before the next",
    ),
    (loss(add=lambda x, group: group.all_reduce(x)), "passes none"),
    (loss(add=lambda x, group: tp.reduce_from(x, group) / group.size), "."),
    (loss(add=lambda x, group: x), "."),
    (gathered, "three numbers|gradient"),
    (gathered_with_gradient, "three numbers"),
    (changes_targets, "changes a tensor that came in"),
    (first_targets, "tensor \\(5, 10, 60\\)"),
    (only_with_targets, "All ranks must"),
    (lambda p, t, g: tp.reduce_from(tp.cross_entropy(p, t, g), g), "times too large"),
    (lambda p, t, g: tp.cross_entropy(p, t, g) / g.size, "times too small"),
    (lambda p, t, g: tp.cross_entropy(tp.copy_to(p, g), t, g), "gradient"),
    (lambda p, t, g: tp.cross_entropy(p.float(), t, g), "dtype torch.float32|off by|is "),
    (lambda p, t, g: tp.cross_entropy(p.flatten(0, 1), t.flatten(), g), "raised"),
    (lambda p, t, g: F.cross_entropy(p.flatten(0, -2), t.flatten() % p.size(-1)), "."),
    (lambda p, t, g: p[..., 0], "gives shape"),
    (lambda p, t, g: None, "None"),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("answer", "words"), LOSSES)
def test_a_wrong_loss(answer, words):
    refused(checks.check_cross_entropy, answer, words)


def own_maximum_put_right(part, targets, group):
    own = part.amax(-1).detach()
    top = group.all_reduce(own, "max")
    total = torch.exp(part - own[..., None]).sum(-1) * torch.exp(own - top)
    width = part.size(-1)
    here = torch.arange(group.rank * width, (group.rank + 1) * width) == targets[..., None]
    both = torch.stack([total, (part * here).sum(-1)])
    total, chosen = tp.reduce_from(both, group)
    return (torch.log(total) + top - chosen).mean()


def by_loop(part, targets, group):
    width, losses = part.size(-1), []
    for row, target in zip(part.reshape(-1, width), targets.flatten().tolist(), strict=True):
        top = group.all_reduce(row.max(), "max")
        total = tp.reduce_from((row - top).exp().sum(), group)
        start = group.rank * width
        mine = row[target - start] if start <= target < start + width else row.sum() * 0
        losses.append(total.log() + top - tp.reduce_from(mine, group))
    return torch.stack(losses).mean()


def by_logsumexp(part, targets, group):
    """Each rank's log of its own sum; their log-sum-exp over the ranks."""
    own = torch.logsumexp(part, -1)
    top = group.all_reduce(own, "max")
    whole = tp.reduce_from((own - top).exp(), group).log() + top
    hot = F.one_hot(targets, group.size * part.size(-1)).to(part.dtype)
    chosen = tp.reduce_from((part * tp.cut(hot, group, -1)).sum(-1), group)
    return (whole - chosen).sum() / targets.numel()


def less_the_maximum(part, targets, group):
    """Rounded otherwise where the loss is small beside the logits."""
    width, top = part.size(-1), group.all_reduce(part.amax(-1), "max")
    less = part - top[..., None]
    total = tp.reduce_from(less.exp().sum(-1), group)
    found = less.gather(-1, (targets % width)[..., None])[..., 0]
    chosen = tp.reduce_from(torch.where(targets // width == group.rank, found, 0.0), group)
    return (total.log() - chosen).mean()


@pytest.mark.parametrize(
    "answer",
    [
        loss(),
        tp.cross_entropy,
        own_maximum_put_right,
        by_loop,
        by_logsumexp,
        less_the_maximum,
        loss(end=lambda total, top, chosen: (top - chosen + total.log()).mean()),
    ],
)
def test_a_right_loss(answer):
    assert "right" in checks.check_cross_entropy(answer)


# The next token


def token(
    top=lambda best, group: group.all_reduce(best, "max"),
    offset=lambda part, group: group.rank * part.size(-1),
    wins=lambda best, top: best == top,
    nobody=lambda part, group: group.size * part.size(-1),
    choose="min",
):
    """The next token with some of its steps replaced."""

    def greedy_token(part, group):
        best, found = part.max(-1)
        found = found + offset(part, group)
        here = wins(best, top(best, group))
        return group.all_reduce(found.where(here, nobody(part, group)), choose)

    return greedy_token


def blocks_what_it_took(part, group):
    found = tp.greedy_token(part, group)
    part -= part.amax(-1, keepdim=True)
    return found


def ids_first(part, group):
    """Ranks agree on the lowest id, and then look who has it."""
    best, found = part.max(-1)
    return group.all_reduce(found + group.rank * part.size(-1), "min")


def in_16_bits(part, group):
    best, found = part.max(-1)
    ids = (found + group.rank * part.size(-1)).short()
    here = best == group.all_reduce(best, "max")
    return group.all_reduce(ids.where(here, 2**15 - 1), "min").long()


def eight_rows(part, group):
    found = tp.greedy_token(part, group)
    return torch.cat([found[:8], part[8:].argmax(-1)])


def nearly(best, top):
    return (best - top).abs() < 1e-6


TOKENS = [
    (eight_rows, "tensor \\(40, 10\\)"),
    (in_16_bits, "tensor \\(1, 200000\\)"),
    *(
        (token(nobody=lambda *_, number=number: number), "tensor \\(1, 200000\\)")
        for number in (252, 1000, 50257, 2**16)
    ),
    (token(wins=nearly), "."),
    (lambda part, group: tp.greedy_token(part.float(), group), "leave them as they are|is "),
    (lambda part, group: tp.greedy_token(part.softmax(-1), group), "."),
    (lambda part, group: part.argmax(-1), "different tokens|place within a rank's part"),
    (token(offset=lambda part, group: 0), "place within a rank's part"),
    (token(offset=lambda part, group: group.rank), "."),
    (token(offset=lambda part, group: group.rank * group.size), "."),
    (token(offset=lambda part, group: group.rank * part.size(0)), "."),
    (token(offset=lambda part, group: (group.rank + 1) * part.size(-1)), "."),
    (token(choose="max", nobody=lambda *_: -1), "lowest id"),
    (token(choose="max", nobody=lambda *_: 0), "lowest id"),
    (token(choose="sum", nobody=lambda *_: 0), "equal logits|added up"),
    (token(nobody=lambda *_: 0), "."),
    (token(nobody=lambda *_: -1), "."),
    (token(nobody=lambda part, group: part.size(-1)), "."),
    (token(top=lambda best, group: group.all_reduce(best.amax(), "max")), "row"),
    (token(top=lambda best, group: group.all_reduce(best, "min")), "."),
    (token(top=lambda best, group: group.all_reduce(best)), "."),
    (token(top=lambda best, group: group.all_reduce(best.clamp(min=0), "max")), "below 0"),
    (token(top=lambda best, group: best), "."),
    (token(wins=lambda best, top: torch.isclose(best, top)), "Nearly equal is not equal"),
    (token(wins=lambda best, top: best < top), "."),
    (lambda part, group: tp.greedy_token(part.abs(), group), "."),
    (lambda part, group: tp.greedy_token(-part, group), "."),
    (lambda part, group: tp.greedy_token(part.half(), group), "."),
    (lambda part, group: tp.greedy_token(part, group).float(), "torch.int64"),
    (lambda part, group: tp.greedy_token(part, group).int(), "torch.int64"),
    (lambda part, group: tp.greedy_token(part, group)[:, None], "shape"),
    (lambda part, group: tp.greedy_token(part, group)[0], "shape"),
    (lambda part, group: tp.greedy_token(part[:1], group).expand(len(part)), "."),
    (lambda part, group: tp.gathered(part, group).argmax(-1), "All logits are sent"),
    (lambda part, group: group.all_reduce(part.argmax(-1), "max"), "."),
    (
        lambda part, group: tp.greedy_token(part, group) if group.rank else part.argmax(-1),
        "All ranks",
    ),
    (ids_first, "."),
    (blocks_what_it_took, "changes a tensor that came in"),
    (lambda part, group: tp.greedy_token(part, group).tolist(), "a list"),
    (lambda part, group: None, "None"),
    (lambda part, group: part.argmax(-1)[9], "raised IndexError at"),
]


@pytest.mark.sampled(3)
@pytest.mark.parametrize(("answer", "words"), TOKENS)
def test_a_wrong_token(answer, words):
    refused(checks.check_greedy_token, answer, words)


def by_minus(part, group):
    best, found = torch.max(part, dim=1)
    top = group.all_reduce(best, "max")
    far = torch.full_like(found, -(10**6))
    mine = torch.where(best < top, far, -(found + group.rank * part.shape[1]))
    return -group.all_reduce(mine, "max")


def both_numbers_as_floats(part, group):
    best, found = part.double().max(-1)
    ids = -(found + group.rank * part.size(-1)).double()
    top = group.all_reduce(best, "max")
    return -group.all_reduce(ids.where(best == top, -torch.inf), "max").long()


def row_by_row(part, group):
    found = []
    for row in part:
        place = int(row.argmax())
        top = group.all_reduce(row[place], "max")
        there = place + group.rank * len(row) if row[place] == top else 10**9
        found.append(group.all_reduce(torch.tensor(there), "min"))
    return torch.stack(found)


def by_whole_rows(part, group):
    top = group.all_reduce(part.amax(-1, keepdim=True), "max")
    ids = torch.arange(part.size(-1)).expand_as(part) + group.rank * part.size(-1)
    return group.all_reduce(ids.masked_fill(part != top, 10**9).amin(-1), "min")


@pytest.mark.parametrize(
    "answer", [token(), by_minus, both_numbers_as_floats, row_by_row, by_whole_rows]
)
def test_a_right_token(answer):
    assert "right" in checks.check_greedy_token(answer)
