"""The families, one entry for each way to prompt and to read, the particular before the general (see `find`)."""

from __future__ import annotations

from mlx_manager.models.families.family import ENABLE_THINKING, THINK, Family, ThinkingSwitch
from mlx_manager.parsing import HarmonyStyle, ReasoningFormat
from mlx_manager.parsing.tool_formats import (
    COMMAND_R,
    DEEPSEEK_R1,
    DEEPSEEK_V4,
    DEEPSEEK_V31,
    DEEPSEEK_V32,
    FUNCTION_GEMMA,
    GEMMA4,
    GLM,
    GRANITE,
    HERMES,
    KIMI_K2,
    LFM2,
    LLAMA3,
    LLAMA4,
    LONGCAT,
    MINIMAX_M1,
    MINIMAX_M2,
    MISTRAL_ARGS,
    MISTRAL_LIST,
    NEMOTRON,
    PHI4_MINI,
    QWEN3_CODER,
    SEED,
)

_THINKING = (ENABLE_THINKING, ThinkingSwitch("thinking"))
_QWEN_TYPES = frozenset(
    {"qwen", "qwen2", "qwen2_moe", "qwen2_vl", "qwen2_5_vl", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_vl"}
    | {"qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_5_moe_text"}
)
_QWEN_STOPS = ("<|im_end|>", "<|endoftext|>")
_MISTRAL_TYPES = frozenset({"mistral", "mixtral", "mistral3", "mistral4", "ministral3", "pixtral", "llava"})
_MISTRAL_THINK = (ReasoningFormat("[THINK]", "[/THINK]"), THINK)
_DEEPSEEK_TYPES = frozenset({"deepseek", "deepseek_v2", "deepseek_v3", "qwen2", "llama"})
_R1_MARK = r"(?s)tool▁sep｜>.{0,120}```json"
_HERMES_MARK = r"(?s)\A(?!.*(<arg_key>|<function=|mm:think|<tool_calls>)).*<tool_call>"
_GEMMA_STOPS = ("<end_of_turn>",)
_LLAMA_STOPS = ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>")

FAMILIES: tuple[Family, ...] = (
    Family(
        name="gpt-oss",
        model_types=frozenset({"gpt_oss"}),
        marks=r"<\|channel\|>analysis",
        style=HarmonyStyle(),
        stop_tokens=("<|return|>", "<|call|>"),
        thinking=(),
        reasoning_key="thinking",
    ),
    Family(
        name="Qwen3-Coder, Qwen3.5",
        model_types=_QWEN_TYPES,
        marks=r"<tool_call>(\\n|\n)<function=",
        tools=QWEN3_CODER,
        reasoning=(THINK,),
        stop_tokens=_QWEN_STOPS,
        image_token="<|image_pad|>",
    ),
    Family(
        name="Nemotron 3",
        model_types=frozenset({"nemotron_h"}),
        marks=r"<tool_call>(\\n|\n)<function=",
        tools=QWEN3_CODER,
        reasoning=(THINK,),
        stop_tokens=("<|im_end|>",),
    ),
    Family(
        name="Nemotron",
        model_types=frozenset({"nemotron", "nemotron-nas", "nemotron_h", "llama"}),
        marks="<TOOLCALL>",
        tools=NEMOTRON,
        reasoning=(THINK,),
        stop_tokens=("<SPECIAL_12>", "<|eot_id|>"),
    ),
    Family(
        name="DeepSeek V4",
        model_types=frozenset({"deepseek_v4", "deepseek_v41", "deepseek_v41_text"}),
        marks=r"｜DSML｜tool_calls|dsml_token \+ 'tool_calls",
        tools=DEEPSEEK_V4,
        reasoning=(THINK,),
        thinking=_THINKING,
    ),
    Family(
        name="DeepSeek V3.2",
        model_types=frozenset({"deepseek_v32"}),
        marks="DSML",
        tools=DEEPSEEK_V32,
        reasoning=(THINK,),
        thinking=_THINKING,
    ),
    Family(
        name="DeepSeek R1, V3",
        model_types=frozenset({"deepseek", "deepseek_v2", "deepseek_v3"}),
        marks=_R1_MARK,
        tools=DEEPSEEK_R1,
        tools_prompt=(
            "## Tools\n\n### Function\n\nYou have the following functions available:\n\n{tools}\n\n"
            "To call one, write exactly this, with nothing behind it:\n"
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>NAME\n```json\nARGUMENTS\n```"
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>\nARGUMENTS is a JSON object. To call several, write one "
            "<｜tool▁call▁begin｜> … <｜tool▁call▁end｜> in a line behind the other."
        ),
        tool_prompt="- `{name}`:\n```json\n{function}\n```",
        reasoning=(THINK,),
        thinking=_THINKING,
    ),
    Family(
        name="DeepSeek R1 distilled",
        model_types=frozenset({"qwen2", "llama"}),
        marks=_R1_MARK,
        tools=DEEPSEEK_R1,
        reasoning=(THINK,),
        thinking=_THINKING,
    ),
    Family(
        name="DeepSeek V3.1",
        model_types=_DEEPSEEK_TYPES,
        marks="<｜tool▁sep｜>",
        tools=DEEPSEEK_V31,
        tools_prompt=(
            "## Tools\nYou have access to the following tools:\n\n{tools}\n\n"
            "IMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments"
            "<｜tool▁call▁end｜>{additional_tool_calls}<｜tool▁calls▁end｜>\n\nWhere:\n\n"
            "- `tool_call_name` must be an exact match to one of the available tools\n"
            "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters Schema\n"
            "- For multiple tool calls, chain them directly without separators or spaces"
        ),
        tool_prompt="### {name}\nDescription: {description}\n\nParameters: {parameters}",
        reasoning=(THINK,),
        thinking=_THINKING,
    ),
    Family(
        name="DeepSeek",
        model_types=frozenset({"deepseek", "deepseek_v2", "deepseek_v3"}),
        marks="<｜Assistant｜>",
        reasoning=(THINK,),
        thinking=_THINKING,
    ),
    Family(
        name="Kimi K2",
        model_types=frozenset({"kimi_k2", "kimi_k25", "kimi_linear", "kimi_vl"}),
        marks=r"<\|tool_calls_section_begin\|>|<\|im_middle\|>",
        tools=KIMI_K2,
        reasoning=(THINK, ReasoningFormat("◁think▷", "◁/think▷")),
        stop_tokens=("<|im_end|>",),
        thinking=_THINKING,
        image_token="<|media_pad|>",
    ),
    Family(
        name="Kimi K3",
        model_types=frozenset({"kimi_k3"}),
        marks=r"<\|open\|>",
        reasoning=(ReasoningFormat("<|open|>think<|sep|>", "<|close|>think<|sep|>"),),
        ignored=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
        stop_tokens=("<|end_of_msg|>",),
        thinking=_THINKING,
    ),
    Family(
        name="GLM-4.5 and later",
        model_types=frozenset({"glm4_moe", "glm4_moe_lite", "glm_moe_dsa", "glm4v", "glm4v_moe"}),
        marks="<arg_key>",
        tools=GLM,
        reasoning=(THINK,),
        stop_tokens=("<|user|>", "<|observation|>", "<|endoftext|>"),
        image_token="<|image|>",
    ),
    Family(
        name="GLM-4",
        model_types=frozenset({"glm", "glm4"}),
        reasoning=(THINK,),
        stop_tokens=("<|user|>", "<|observation|>", "<|endoftext|>"),
    ),
    Family(
        name="MiniMax M2",
        model_types=frozenset({"minimax", "minimax_m2"}),
        marks="<minimax:tool_call>",
        tools=MINIMAX_M2,
        reasoning=(THINK,),
        stop_tokens=("[e~[",),
        dates={"current_date": "%Y-%m-%d"},
    ),
    Family(
        name="MiniMax M1",
        model_types=frozenset({"minimax"}),
        marks="<tool_calls>",
        tools=MINIMAX_M1,
        reasoning=(THINK,),
        stop_tokens=("<end_of_sentence>",),
    ),
    Family(
        name="MiniMax M3",
        model_types=frozenset({"minimax_m3_vl", "minimax_m3"}),
        marks="mm:think",
        reasoning=(ReasoningFormat("<mm:think>", "</mm:think>"),),
        stop_tokens=("[e~[",),
        thinking=(ThinkingSwitch("thinking_mode", "enabled", "disabled"),),
        image_token="]<]image[>[",
    ),
    Family(
        name="Seed-OSS",
        model_types=frozenset({"seed_oss"}),
        marks="<seed:tool_call>",
        tools=SEED,
        reasoning=(ReasoningFormat("<seed:think>", "</seed:think>"),),
        stop_tokens=("<seed:eos>",),
        thinking=(ThinkingSwitch("thinking_budget", -1, 0),),
    ),
    Family(
        name="LongCat",
        model_types=frozenset({"longcat_flash", "longcat_flash_ngram"}),
        marks="<longcat_tool_call>",
        tools=LONGCAT,
        reasoning=(ReasoningFormat("<longcat_think>", "</longcat_think>"),),
        stop_tokens=("</longcat_s>",),
    ),
    Family(
        name="Gemma 4",
        model_types=frozenset({"gemma4", "gemma4_text", "gemma4_unified"}),
        marks=r"<\|tool_call>",
        tools=GEMMA4,
        reasoning=(ReasoningFormat("<|channel>thought", "<channel|>"),),
        stop_tokens=("<turn|>", "<|tool_response>"),
        image_token="<|image|>",
    ),
    Family(
        name="FunctionGemma",
        model_types=frozenset({"gemma3", "gemma3_text"}),
        marks="<start_function_call>",
        tools=FUNCTION_GEMMA,
        stop_tokens=("<end_of_turn>", "<start_function_response>"),
    ),
    Family(
        name="Gemma 1 to 3, 3n",
        model_types=frozenset({"gemma", "gemma2", "gemma3", "gemma3_text", "gemma3n"}),
        stop_tokens=_GEMMA_STOPS,
        image_token="<start_of_image>",
    ),
    Family(
        name="LFM2",
        model_types=frozenset({"lfm2", "lfm2_moe", "lfm2-vl", "lfm2_vl"}),
        marks=r"<\|tool_list_start\|>|<\|tool_call_start\|>",
        tools=LFM2,
        reasoning=(THINK,),
        stop_tokens=("<|im_end|>",),
        image_token="<image>",
    ),
    Family(
        name="Command-R7B, Command A",
        model_types=frozenset({"cohere", "cohere2"}),
        marks=r"<\|START_ACTION\|>",
        tools=COMMAND_R,
        reasoning=(ReasoningFormat("<|START_THINKING|>", "<|END_THINKING|>"),),
        ignored=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
        stop_tokens=("<|END_OF_TURN_TOKEN|>",),
    ),
    Family(
        name="Command-R, Aya",
        model_types=frozenset({"cohere", "cohere2", "aya_vision"}),
        stop_tokens=("<|END_OF_TURN_TOKEN|>",),
    ),
    Family(
        name="Granite 3",
        model_types=frozenset({"granite", "granitemoe"}),
        marks=r"<\|tool_call\|>[^\n]{0,80}JSON list",
        tools=GRANITE,
        reasoning=(THINK, ReasoningFormat("Here is my thought process:", "Here is my response:")),
        ignored=("<response>", "</response>"),
        stop_tokens=("<|end_of_text|>",),
        thinking=(ThinkingSwitch("thinking"),),
    ),
    Family(
        name="Hermes",
        marks=_HERMES_MARK,
        tools=HERMES,
        reasoning=(THINK,),
        stop_tokens=("<|im_end|>", "<|eot_id|>"),
    ),
    Family(
        name="Granite 4",
        model_types=frozenset({"granite", "granitemoe", "granitemoehybrid"}),
        marks=_HERMES_MARK,
        tools=HERMES,
        stop_tokens=("<|end_of_text|>",),
        thinking=(ThinkingSwitch("thinking"),),
    ),
    Family(
        name="Phi-4-mini",
        model_types=frozenset({"phi3", "phimoe", "phi4mm"}),
        marks=r"<\|tool\|>|<\|tool_call\|>",
        tools=PHI4_MINI,
        reasoning=(THINK,),
        stop_tokens=("<|end|>", "<|endoftext|>"),
        tools_variable="",
    ),
    Family(
        name="Phi",
        model_types=frozenset({"phi", "phi3", "phi3small", "phimoe", "phixtral", "phi3_v"}),
        reasoning=(THINK,),
        stop_tokens=("<|end|>", "<|im_end|>", "<|endoftext|>"),
    ),
    Family(
        name="Mistral since v11, Devstral, Magistral, Ministral 3",
        model_types=_MISTRAL_TYPES,
        marks=r"\[ARGS\]",
        tools=MISTRAL_ARGS,
        reasoning=_MISTRAL_THINK,
        stop_tokens=("</s>",),
        image_token="[IMG]",
    ),
    Family(
        name="Mistral 7B, Mixtral, Nemo, Small",
        model_types=_MISTRAL_TYPES,
        marks=r"\[TOOL_CALLS\]",
        tools=MISTRAL_LIST,
        reasoning=_MISTRAL_THINK,
        stop_tokens=("</s>",),
        image_token="[IMG]",
    ),
    Family(
        name="Mistral without tools",
        model_types=_MISTRAL_TYPES,
        reasoning=_MISTRAL_THINK,
        stop_tokens=("</s>",),
        image_token="[IMG]",
    ),
    Family(
        name="Llama 4",
        model_types=frozenset({"llama4", "llama4_text"}),
        tools=LLAMA4,
        stop_tokens=("<|eot|>", "<|eom|>", "<|end_of_text|>"),
        dates={"date_string": "%d %b %Y"},
        image_token="<|image|>",
    ),
    Family(
        name="Llama 3.1 to 3.3",
        model_types=frozenset({"llama", "mllama"}),
        marks="dictionary of argument name and its value",
        tools=LLAMA3,
        stop_tokens=_LLAMA_STOPS,
        dates={"date_string": "%d %b %Y"},
        image_token="<|image|>",
    ),
    Family(
        name="SmolLM",
        model_types=frozenset({"smollm3", "llama", "idefics3", "smolvlm"}),
        marks="named SmolLM|xml_tools",
        tools=HERMES,
        reasoning=(THINK,),
        stop_tokens=("<|im_end|>",),
        tools_variable="xml_tools",
        image_token="<image>",
    ),
    Family(
        name="Qwen 2, 2.5, 3, VL, QwQ",
        model_types=_QWEN_TYPES,
        marks=_HERMES_MARK,
        tools=HERMES,
        reasoning=(THINK,),
        stop_tokens=_QWEN_STOPS,
        image_token="<|image_pad|>",
    ),
    Family(
        name="Llama 2, 3, CodeLlama",
        model_types=frozenset({"llama"}),
        reasoning=(THINK,),
        stop_tokens=("<|eot_id|>",),
    ),
)
