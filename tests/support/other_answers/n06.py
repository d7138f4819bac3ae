"""Right answers to the exercises of notebook 06, written in another way than the course's."""

OTHER_ANSWERS = {
    "token_times": [
        """
def token_times(start, clock=timer):
    begin, times, tokens = clock(), [], iter(start())
    while next(tokens, None) is not None:
        times.append(clock() - begin)
    return times
""",
        """
def token_times(start, clock=timer):
    found = []
    begin = clock()
    for _ in start():
        found.append(clock())
    return [now - begin for now in found]
""",
        """
def token_times(start, clock=timer):
    begin = clock()
    return list(map(lambda token: clock() - begin, start()))
""",
    ],
    "measure": [
        """
def measure(tasks, rounds, clock=timer):
    for name in tasks:
        tasks[name]()
    seconds = {}
    for turn in range(rounds):
        for name in tasks:
            before = clock()
            tasks[name]()
            after = clock()
            seconds.setdefault(name, []).append(after - before)
    return seconds
""",
        """
def measure(tasks, rounds, clock=timer):
    seconds = {name: [] for name in tasks}
    for turn in range(rounds + 1):
        for name, task in tasks.items():
            begin = clock()
            task()
            if turn:
                seconds[name].append(clock() - begin)
    return seconds
""",
        """
def measure(tasks, rounds, clock=timer):
    def once(task):
        begin = clock()
        task()
        return clock() - begin

    names = list(tasks)
    table = np.array([[once(tasks[name]) for name in names] for _ in range(rounds + 1)])[1:]
    return {name: list(table[:, i]) for i, name in enumerate(names)}
""",
    ],
    "operations": [
        """
def operations(model, new_tokens, all_tokens):
    weights = sum(
        p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embedding" not in n
    )
    d_model = model.token_embedding.embedding_dim
    return 2 * new_tokens * weights + 4 * model.num_layers * new_tokens * all_tokens * d_model
""",
        """
def operations(model, new_tokens, all_tokens):
    total = 0.0
    for part in model.modules():
        if type(part) is nn.Linear:
            total += 2.0 * new_tokens * part.in_features * part.out_features
    for _ in range(model.num_layers):
        total += 2 * 2 * new_tokens * all_tokens * model.output_projection.weight.shape[1]
    return total
""",
        """
def operations(model, new_tokens, all_tokens):
    layers = [x for x in model.modules() if isinstance(x, nn.Linear)]
    numel = torch.tensor([layer.weight.numel() for layer in layers]).sum().item()
    d = model.norm.weight.numel()
    return new_tokens * (numel + 2 * len(model.layers) * d * all_tokens) * 2
""",
    ],
    "exponent": [
        """
def exponent(tokens, seconds):
    x = np.stack([np.log(tokens), np.ones(len(tokens))], axis=1)
    return np.linalg.lstsq(x, np.log(seconds), rcond=None)[0][0]
""",
        """
def exponent(tokens, seconds):
    x, y = np.log10(tokens), np.log10(seconds)
    return np.cov(x, y, bias=True)[0, 1] / np.var(x)
""",
        """
def exponent(tokens, seconds):
    x, y = [math.log2(n) for n in tokens], [math.log2(s) for s in seconds]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    above = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y))
    return torch.tensor(above / sum((a - mean_x) ** 2 for a in x), dtype=torch.float64)
""",
    ],
}
