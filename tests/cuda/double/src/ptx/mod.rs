//! PTX text: cut into tokens, parsed into statements, lowered into the instructions that `run` interprets.

pub mod instruction;
pub mod lexer;
pub mod lower;
pub mod mutate;
pub mod parser;
pub mod registers;
mod statement;
pub mod syntax;
