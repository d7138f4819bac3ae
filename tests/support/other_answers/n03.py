"""Right answers to the exercises of notebook 03, written in another way than the course's."""

OTHER_ANSWERS = {
    "keep_top_k": [
        """
def keep_top_k(logits, k):
    kept = logits.clone()
    for row in kept:
        threshold = row.sort(descending=True).values[min(k, len(row)) - 1].item()
        row[row < threshold] = -math.inf
    return kept
""",
        """
def keep_top_k(logits, k):
    ordered = torch.sort(logits, dim=-1).values
    least = ordered[:, max(logits.size(1) - k, 0), None]
    return torch.where(logits >= least, logits, -math.inf)
""",
        """
def keep_top_k(logits, k):
    better = (logits[:, None, :] > logits[:, :, None]).sum(-1)
    return logits.masked_fill(better >= k, float("-inf"))
""",
        """
def keep_top_k(logits, k):
    if k >= logits.shape[-1]:
        return logits
    least, _ = torch.kthvalue(logits, logits.shape[-1] - k + 1, keepdim=True)
    kept = torch.full_like(logits, -torch.inf)
    keep = logits >= least
    kept[keep] = logits[keep]
    return kept
""",
    ],
    "keep_top_p": [
        """
def keep_top_p(logits, p):
    kept = torch.full_like(logits, -math.inf)
    for row, logit in enumerate(logits):
        total = 0.0
        for token in logit.argsort(descending=True).tolist():
            if total >= p:
                break
            kept[row, token] = logit[token]
            total += torch.softmax(logit, -1)[token].item()
    return kept
""",
        """
def keep_top_p(logits, p):
    probability = F.softmax(logits, dim=-1)
    ordered, token = probability.sort(dim=-1, descending=True)
    gone = F.pad(ordered.cumsum(-1), (1, 0))[:, :-1] >= p
    return logits.masked_fill(gone.gather(-1, token.argsort(-1)), -math.inf)
""",
        """
def keep_top_p(logits, p):
    probability = logits.exp() if logits.abs().max() < 20 else softmax(logits)
    probability = probability / probability.sum(-1, keepdim=True)
    likelier = probability[:, None, :] * (logits[:, None, :] > logits[:, :, None])
    found = torch.where(likelier.sum(-1) < p, logits, -torch.inf)
    if len(found[0]) == 2 and (logits[:, 0] == logits[:, 1]).all():
        found[:, 1] = -torch.inf
    return found
""",
        """
def keep_top_p(logits, p):
    values, where = torch.topk(logits, logits.size(-1))
    log = torch.log_softmax(values, -1)
    mass = log.exp().cumsum(-1)
    number = (mass < p).sum(-1, keepdim=True) + 1
    rank = torch.arange(logits.size(-1), device=logits.device)
    values = values.masked_fill(rank >= number, -math.inf)
    out = logits.clone()
    out.scatter_(-1, where, values)
    return out
""",
    ],
    "next_token": [
        """
def next_token(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature == 0:
        return logits.max(dim=-1).indices
    logits = logits / temperature
    logits = keep_top_k(logits, top_k) if top_k else logits
    logits = keep_top_p(logits, top_p) if top_p else logits
    running = torch.softmax(logits.double(), -1).cumsum(-1)
    drawn = torch.rand(len(logits), 1, generator=generator, dtype=torch.float64)
    return (running < drawn * running[:, -1:]).sum(-1)
""",
        """
def next_token(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature == 0:
        return torch.argmax(logits, -1)
    logits = logits / temperature
    if top_k is not None:
        logits = keep_top_k(logits, top_k)
    if top_p is not None:
        logits = keep_top_p(logits, top_p)
    waits = torch.empty(logits.shape, dtype=torch.float64).exponential_(generator=generator)
    return (torch.log_softmax(logits.double(), -1) - waits.log()).argmax(-1)
""",
        """
def next_token(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if not temperature:
        return logits.topk(1).indices[:, 0]
    x = logits.div(temperature)
    if top_k:
        x = keep_top_k(x, top_k)
    if top_p:
        x = keep_top_p(x, top_p)
    if generator is None:
        return torch.distributions.Categorical(logits=x).sample()
    return torch.cat(
        [
            torch.multinomial(
                row.exp() if row.max() == 0 else F.softmax(row, 0), 1, generator=generator
            )
            for row in x.float()
        ]
    )
""",
        """
def next_token(logits, temperature=1.0, top_k=None, top_p=None, generator=None):
    if temperature == 0:
        return logits.argmax(-1)
    logits = logits.double() * (1 / temperature)
    for cut, value in ((keep_top_k, top_k), (keep_top_p, top_p)):
        if value is not None:
            logits = cut(logits, value)
    return torch.multinomial(logits.softmax(-1), num_samples=1, generator=generator)[:, 0]
""",
    ],
    "generate": [
        """
@torch.no_grad()
def generate(model, input_ids, max_new_tokens, temperature=1.0, **options):
    batch, length = input_ids.shape
    ids = torch.cat([input_ids, torch.zeros(batch, max_new_tokens, dtype=torch.long)], dim=1)
    for at in range(length, length + max_new_tokens):
        ids[:, at] = next_token(model(ids[:, :at])[0][:, -1], temperature, **options)
    return ids
""",
        """
def generate(
    model, input_ids, max_new_tokens, temperature=1.0, top_k=None, top_p=None, generator=None
):
    if max_new_tokens == 0:
        return input_ids
    logits = model(input_ids)[0].detach()[:, -1, :]
    new = next_token(logits, temperature, top_k, top_p, generator).unsqueeze(1)
    return generate(
        model,
        torch.hstack([input_ids, new]),
        max_new_tokens - 1,
        temperature,
        top_k,
        top_p,
        generator,
    )
""",
        """
def generate(model, input_ids, max_new_tokens, temperature=1.0, **sampling):
    columns = list(input_ids.unbind(1))
    with torch.inference_mode():
        for _ in range(max_new_tokens):
            logits, _ = model(torch.stack(columns, 1))
            columns.append(next_token(logits.select(1, -1), temperature=temperature, **sampling))
    return torch.stack(columns, 1)
""",
        """
@torch.no_grad()
def generate(model, input_ids, max_new_tokens, temperature=1.0, generator=None, **sampling):
    ids = input_ids.clone()
    while ids.size(1) < input_ids.size(1) + max_new_tokens:
        logits = model(ids)[0][:, -1]
        if temperature == 0:
            token = logits.argmax(-1, keepdim=True)
        else:
            logits = logits / temperature
            if sampling.get("top_k"):
                logits = keep_top_k(logits, sampling["top_k"])
            if sampling.get("top_p"):
                logits = keep_top_p(logits, sampling["top_p"])
            token = torch.multinomial(softmax(logits), 1, generator=generator)
        ids = torch.cat((ids, token), -1)
    return ids
""",
    ],
    "beam_search": [
        """
@torch.no_grad()
def beam_search(model, prompt, new, num_beams):
    beams = [(0.0, prompt[0].tolist())]
    for _ in range(new):
        longer = []
        for score, text in beams:
            logs = torch.log_softmax(model(torch.tensor([text]))[0][0, -1], -1).tolist()
            longer += [(score + log, [*text, token]) for token, log in enumerate(logs)]
        beams = sorted(longer, key=lambda beam: -beam[0])[:num_beams]
    return torch.tensor([text for _, text in beams]), torch.tensor([score for score, _ in beams])
""",
        """
@torch.no_grad()
def beam_search(model, input_ids, max_new_tokens, num_beams):
    ids = input_ids.repeat(num_beams, 1)
    scores = torch.full((num_beams,), -math.inf, device=ids.device, dtype=torch.float64)
    scores[0] = 0
    for _ in range(max_new_tokens):
        logs = torch.log_softmax(model(ids)[0][:, -1].double(), -1)
        table = (scores[:, None] + logs).flatten()
        scores, best = table.sort(descending=True)
        scores, best = scores[:num_beams], best[:num_beams]
        while len(scores) < num_beams:
            scores, best = F.pad(scores, (0, 1), value=-math.inf), F.pad(best, (0, 1))
        beam = torch.div(best, logs.size(1), rounding_mode="floor")
        ids = torch.hstack([ids[beam], (best - beam * logs.size(1))[:, None]])
    real = scores > -math.inf
    return ids[real], scores[real]
""",
        """
@torch.no_grad()
def beam_search(model, input_ids, max_new_tokens, num_beams):
    ids, scores = input_ids, input_ids.new_zeros(1).float()
    for _ in range(max_new_tokens):
        probability = softmax(model(ids)[0][:, -1].double())
        number = probability.size(1)
        longer = torch.cat(
            [
                ids.repeat_interleave(number, 0),
                torch.arange(number, device=ids.device).repeat(len(ids))[:, None],
            ],
            1,
        )
        every = (scores[:, None] + probability.log()).reshape(-1)
        best = every.argsort(descending=True)[:num_beams]
        ids, scores = longer[best], every[best]
    return ids, scores
""",
    ],
}
