"""Chat templates of the kinds that there are, and the turns that a user of transformers would
write."""

from families import tiny_tokenizer

from eckart import Task

CHATML = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
SYSTEM = "{{ bos_token }}{{ '<|system|>\nBe brief.<end>\n' }}" + CHATML
TRIMMED = SYSTEM.replace("m['content']", "(m['content'] | trim)")
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content']"
    " + ' [/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)
THINKING = CHATML.replace(
    "'<|' + m['role'] + '|>\n' + m['content']",
    "'<|' + m['role'] + '|>\n' + ('<think>\n\n</think>\n\n' if loop.last and m['role'] =="
    " 'assistant' else '') + m['content']",
)
TEMPLATES = {
    "chatml": CHATML, "system": SYSTEM, "trimmed": TRIMMED, "inst": INST, "thinking": THINKING
}  # fmt: skip
MODES = ("multiturn", "single")


def chatting(template: str | dict | None, **options):
    tokenizer = tiny_tokenizer(**options)
    tokenizer.chat_template = template
    return tokenizer


def turns(task: Task, example, shots: int) -> list[dict[str, str]]:
    """What a user of transformers would write."""
    lead = f"{task.format.instruction}\n" if task.format.instruction else ""
    shown = task.demonstrations[:shots]
    if task.said.chat == "single":
        texts = [f"{e.text} {task.labels[e.label]}\n" for e in shown]
        return [{"role": "user", "content": lead + "".join(texts) + example.text}]
    said = [
        message
        for e in shown
        for message in (
            {"role": "user", "content": e.text},
            {"role": "assistant", "content": task.labels[e.label]},
        )
    ]
    said.append({"role": "user", "content": example.text})
    said[0] = {"role": "user", "content": lead + said[0]["content"]}
    return said
