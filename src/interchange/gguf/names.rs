//! From module paths to the names of llama.cpp's tensors, and which rows its converter permutes.

use super::Gguf;
use crate::error::Result;
use crate::fail;

/// Whether the rows of q and k are permuted, from rotate-half pairs to neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rope {
    /// As the converter does for the architecture; an error where the table does not hold it.
    #[default]
    ByArchitecture,
    /// As they are.
    Keep,
    /// Permuted.
    Permute,
}

struct Architecture {
    name: &'static str,
    /// Whether the converter permutes q and k.
    permutes: bool,
    /// Whether it writes an output head of its own.
    has_head: bool,
}

/// Those whose converter was read: "llama" is Mistral, too. All name the linear layers of a block alike.
const ARCHITECTURES: [Architecture; 9] = [
    Architecture { name: "llama", permutes: true, has_head: true },
    Architecture { name: "granite", permutes: true, has_head: true },
    Architecture { name: "olmo", permutes: true, has_head: true },
    Architecture { name: "olmo2", permutes: false, has_head: true },
    Architecture { name: "qwen2", permutes: false, has_head: true },
    Architecture { name: "qwen3", permutes: false, has_head: true },
    Architecture { name: "gemma", permutes: false, has_head: false },
    Architecture { name: "gemma2", permutes: false, has_head: false },
    Architecture { name: "gemma3", permutes: false, has_head: false },
];

/// Within `model.layers.N.`, and within `blk.N.`.
const LAYERS: [(&str, &str); 7] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

const Q_TENSOR: &str = ".attn_q.weight";
const K_TENSOR: &str = ".attn_k.weight";

pub struct Names<'a> {
    gguf: &'a Gguf<'a>,
    known: Option<&'static Architecture>,
}

impl<'a> Names<'a> {
    pub fn new(gguf: &'a Gguf<'a>) -> Result<Self> {
        if gguf.architecture.is_empty() {
            fail!(Argument, "the architecture is empty; wanted the model's general.architecture, as \"llama\"");
        }
        let known = ARCHITECTURES.iter().find(|known| known.name == gguf.architecture);
        Ok(Self { gguf, known })
    }

    /// The tensor of a module's weight.
    pub fn tensor(&self, module: &str) -> Result<String> {
        if let Some((_, given)) = self.gguf.names.iter().find(|(path, _)| *path == module) {
            if given.is_empty() {
                fail!(Argument, "the tensor name of module '{module}' is empty; wanted one as \"blk.0.attn_q.weight\"");
            }
            return Ok((*given).to_owned());
        }
        let Some(known) = self.known else {
            fail!(
                NotFound,
                "module '{module}' has no tensor name, and the table of names knows {}, not \"{}\"; give its name",
                known_architectures(),
                self.gguf.architecture
            );
        };
        match from_table(module, known) {
            Some(tensor) => Ok(tensor),
            None => fail!(
                NotFound,
                "module '{module}' has no tensor name, and is none of those that \"{}\" is known to have; give its name",
                known.name
            ),
        }
    }

    /// By which heads the rows of a module are permuted; None for those that stay.
    pub fn heads(&self, module: &str, tensor: &str, outputs: usize) -> Result<Option<Heads>> {
        let (heads, argument, field) = match (tensor.ends_with(Q_TENSOR), tensor.ends_with(K_TENSOR)) {
            (true, _) => (self.gguf.heads, "heads", "num_attention_heads"),
            (_, true) => (self.gguf.kv_heads, "kv_heads", "num_key_value_heads"),
            _ => return Ok(None),
        };
        let permutes = match (self.gguf.rope, self.known) {
            (Rope::Keep, _) => false,
            (Rope::Permute, _) => true,
            (Rope::ByArchitecture, Some(known)) => known.permutes,
            (Rope::ByArchitecture, None) => fail!(
                NotFound,
                "whether llama.cpp permutes the rows of '{tensor}' is known for {}, not for \"{}\"; say it",
                known_architectures(),
                self.gguf.architecture
            ),
        };
        if !permutes {
            return Ok(None);
        }
        if heads == 0 {
            fail!(
                Argument,
                "{argument} is 0, but llama.cpp permutes the rows of '{module}' head by head for \"{}\"; wanted {field} of the model's config.json",
                self.gguf.architecture
            );
        }
        if !outputs.is_multiple_of(heads) || !(outputs / heads).is_multiple_of(2) {
            fail!(
                Shape,
                "module '{module}' has {outputs} outputs; wanted an even number for each of {heads} {argument}"
            );
        }
        Ok(Some(Heads { size: outputs / heads }))
    }
}

fn from_table(module: &str, known: &Architecture) -> Option<String> {
    if module == "lm_head" && known.has_head {
        return Some("output.weight".into());
    }
    let in_layers = module.strip_prefix("model.").unwrap_or(module).strip_prefix("layers.")?;
    let (number, rest) = in_layers.split_once('.')?;
    let number: u32 = number.parse().ok().filter(|_| number.bytes().all(|byte| byte.is_ascii_digit()))?;
    let (_, tensor) = LAYERS.iter().find(|(path, _)| *path == rest)?;
    Some(format!("blk.{number}.{tensor}.weight"))
}

fn known_architectures() -> String {
    ARCHITECTURES.iter().map(|known| known.name).collect::<Vec<_>>().join(", ")
}

/// A permutation of rows, head by head: halves of a head are dealt one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Rows of a head, an even number.
    size: usize,
}

impl Heads {
    pub fn size(self) -> usize {
        self.size
    }

    /// The row that comes to stand at `row`.
    pub fn source(self, row: usize) -> usize {
        let (head, place) = (row / self.size, row % self.size);
        head * self.size + (place % 2) * (self.size / 2) + place / 2
    }
}
