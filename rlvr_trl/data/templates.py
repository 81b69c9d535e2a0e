r"""How the text of a problem becomes a prompt.

A template is a string, which makes a string prompt without a chat template; a list of messages, which makes a
conversation; or a function of the row. In strings and messages `{problem}` stands for the problem. All other braces,
as in `\boxed{}`, are left alone.
"""

from collections.abc import Callable

from ..registry import did_you_mean


Prompt = str | list[dict[str, str]]
Template = str | list[dict[str, str]] | Callable[[dict], Prompt]

SLOT = "{problem}"
STEP_BY_STEP = r"Please reason step by step, and put your final answer within \boxed{}."
CHOOSE = r"Please reason step by step, and put the letter of the right option within \boxed{}."
TAGGED = "You may think first. Then give your final answer, and nothing else, inside <answer> and </answer>."
THINK = r"First reason between <think> and </think>. Then put your final answer within \boxed{}."

# As printed in App. E of DARS (arXiv 2508.13755), which does not say where it stands
DARS = (
    "Your task is to solve the given question step by step. You should conduct a systematic, thorough "
    "reasoning process before providing the final answer. This involves analyzing, summarizing, exploring, "
    "reassessing, and refining your reasoning process through multiple iterations. Each reasoning step should "
    "include detailed analysis, brainstorming, verification, and refinement of ideas. You should include the "
    "final answer in \\boxed{} for closed-form results like multiple choices or mathematical results."
)
# As printed in App. C.2 of A-GRAE (arXiv 2602.05548), where the tags themselves are lost
A_GRAE_GEO3K = (
    "This is a multiple-choice question. You FIRST think about the reasoning process as an internal monologue "
    "and then provide the final choice from the given options. The reasoning process MUST BE enclosed within "
    "<think> </think> tags. The final answer MUST BE put in \\boxed{}."
)

PROMPT_TEMPLATES: dict[str, Template] = {
    # The system prompt of Qwen2.5-Math, which A-GRAE prints too.
    "boxed": [{"role": "system", "content": STEP_BY_STEP}, {"role": "user", "content": SLOT}],
    # The same request after the problem, as the two-stage view prints it (arXiv 2510.04028, App. C.2).
    "qwen_boxed_suffix": [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": f"{SLOT}\n{STEP_BY_STEP}"},
    ],
    # For base models: text that a solution continues.
    "plain": f"Problem:\n{SLOT}\n\n{STEP_BY_STEP}\n\nSolution:\n",
    "dars": [{"role": "system", "content": DARS}, {"role": "user", "content": SLOT}],
    "dars_plain": f"{DARS}\n\n{SLOT}\n\n",
    "choice": [{"role": "system", "content": CHOOSE}, {"role": "user", "content": SLOT}],
    # For rewards that read an answer inside tags, such as `reasoning_gym_reward`.
    "tags": [{"role": "user", "content": f"{SLOT}\n\n{TAGGED}"}],
    "geo3k": [{"role": "user", "content": f"{SLOT}\n\n{THINK}"}],
    "a_grae_geo3k": [{"role": "system", "content": A_GRAE_GEO3K}, {"role": "user", "content": SLOT}],
}


def find_template(template: str | Template) -> Template:
    """
    The template of this name, or `template` itself if it is one.

    Raises:
        ValueError: `template` is neither.
    """
    if isinstance(template, str) and template in PROMPT_TEMPLATES:
        return PROMPT_TEMPLATES[template]
    texts = [template] if isinstance(template, str) else []
    if isinstance(template, list):
        texts = [message["content"] for message in template]
    if not callable(template) and not any(SLOT in text for text in texts):
        hint = did_you_mean(template, PROMPT_TEMPLATES) if isinstance(template, str) else ""
        raise ValueError(
            f"template must be one of {sorted(PROMPT_TEMPLATES)}, a string or messages with {SLOT}, or a function of "
            f"the row, got {template!r}.{hint}"
        )
    return template


def fill_template(template: Template, problem: str, row: dict) -> Prompt:
    """
    The prompt of a problem.

    Args:
        template: as returned by [`find_template`].
        problem (`str`): text of the problem; options of a multiple-choice question are part of it.
        row (`dict`): columns of the source as they were read, given to a function along with `problem`.
    """
    if callable(template):
        return template({**row, "problem": problem})
    if isinstance(template, str):
        return template.replace(SLOT, problem)
    return [{**message, "content": message["content"].replace(SLOT, problem)} for message in template]
