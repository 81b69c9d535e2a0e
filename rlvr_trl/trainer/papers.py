"""The papers behind the trainers, for the model cards."""


def paper(arxiv_id: str, title: str, authors: str, key: str) -> dict[str, str]:
    """What TRL's model card needs to know of a paper. The year is that of the arXiv id."""
    fields = {
        "title": f"{{{{{title}}}}}",
        "author": f"{{{authors}}}",
        "year": f"20{arxiv_id[:2]}",
        "eprint": f"{{arXiv:{arxiv_id}}}",
    }
    lines = "".join(f"    {name:<12} = {value},\n" for name, value in fields.items())
    return {"id": arxiv_id, "title": title, "citation": f"@article{{{key},\n{lines}}}"}


DARS = paper(
    "2508.13755",
    "Depth-Breadth Synergy in RLVR: Unlocking LLM Reasoning Gains with Adaptive Exploration",
    "Zhicheng Yang and Zhijiang Guo and Yinya Huang and Yongxin Wang and Dongchun Xie and Hanhui Li and Yiwei Wang "
    "and Xiaodan Liang and Jing Tang",
    "yang2025dars",
)
PASS_AT_K = paper(
    "2508.10751",
    "Pass@k Training for Adaptively Balancing Exploration and Exploitation of Large Reasoning Models",
    "Zhipeng Chen and Xiaobo Qin and Youbin Wu and Yue Ling and Qinghao Ye and Wayne Xin Zhao and Guang Shi",
    "chen2025passatk",
)
A_GRAE = paper(
    "2602.05548",
    "Unveiling Implicit Advantage Symmetry: Why GRPO Struggles with Exploration and Difficulty Adaptation",
    "Zhiqi Yu and Zhangquan Chen and Mengting Liu and Heye Zhang and Liangqiong Qu",
    "yu2026agrae",
)
TWO_STAGE = paper(
    "2510.04028",
    "The Debate on RLVR Reasoning Capability Boundary: Shrinkage, Expansion, or Both? A Two-Stage Dynamic View",
    "Xinhao Yao and Lu Yu and Xiaolin Hu and Fengwei Teng and Qing Cui and Jun Zhou and Yong Liu",
    "yao2025twostage",
)
