//! What a null `target_modules` means: PEFT 0.21.2's table of model types (its constant
//! `TRANSFORMERS_MODELS_TO_PVERA_TARGET_MODULES_MAPPING`).

use super::Targets;

/// The targets for a `model_type` of a transformers configuration; none where PEFT has no entry.
pub(super) fn targets(model_type: &str) -> Option<Targets> {
    let names: &[&str] = match model_type {
        "t5" | "mt5" => &["q", "v"],
        "bart" | "opt" | "gptj" | "gpt_neo" | "llama" | "llama4" | "mistral" | "mixtral" | "stablelm" | "phi"
        | "gemma" | "gemma2" | "gemma3_text" | "qwen2" | "qwen3" => &["q_proj", "v_proj"],
        "bert" | "roberta" | "xlm-roberta" | "electra" | "layoutlm" | "dinov2" => &["query", "value"],
        "bloom" | "gpt_neox" | "chatglm" | "RefinedWebModel" | "RefinedWeb" | "falcon" => &["query_key_value"],
        "gpt2" | "gpt_bigcode" => &["c_attn"],
        "gemma4" => return Some(Targets::Pattern(r".*language_model\..*\.(q_proj|v_proj)".into())),
        "blip-2" => &["q", "v", "q_proj", "v_proj"],
        "deberta-v2" => &["query_proj", "value_proj"],
        "deberta" => &["in_proj"],
        "mpt" => &["Wqkv"],
        "btlm" => &["c_proj", "c_attn"],
        "codegen" => &["qkv_proj"],
        "nemotron_h" => &["q_proj", "k_proj", "v_proj", "o_proj"],
        "rwkv" => &["key", "value", "receptance", "output"],
        "rwkv7" => &["r_proj", "k_proj", "v_proj", "o_proj", "key", "value"],
        _ => return None,
    };
    Some(Targets::List(names.iter().map(|name| String::from(*name)).collect()))
}
