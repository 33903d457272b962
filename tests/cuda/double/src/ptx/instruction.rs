//! The decoded form: sixteen bytes an instruction, operands as places in a thread's frame.
//!
//! A frame holds one 64-bit value a place: registers, then constants and special registers. Narrow values are kept zero-extended,
//! predicates as 0 or 1.

/// Which fields of an instruction an operation reads and writes: `s[0]` is the result unless told otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// s0 from s1
    One,
    /// s0 from s1, s2
    Two,
    /// s0 from s1, s2, s3
    Three,
    /// s0 from s1, s2, s3, s4
    Four,
    /// s0 (and s2, s3, s4 of a vector) from the address s1 + imm; `sub` is an `Access`.
    Load,
    /// The address s1 + imm from s0 (and s2, s3, s4); `sub` is an `Access`.
    Store,
    /// s0 from the address s1 + imm, s2 and (compare-and-swap) s3.
    Atomic,
    /// To `imm`.
    Jump,
    /// To `imm`, by the predicate s1.
    JumpBy,
    /// To the entry s1 of table `imm`.
    JumpTable,
    /// Nothing read, nothing written.
    Alone,
}

macro_rules! operations {
    ($($shape:ident: $($name:ident)*;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Op { $($($name,)*)* }

        impl Op {
            pub fn shape(self) -> Shape {
                match self { $($(Op::$name => Shape::$shape,)*)* }
            }
        }
    };
}

operations! {
    One: Move SignExtend ZeroExtend High32 Not16 Not32 Not64 NotPredicate
        Negate16 Negate32 Negate64 Absolute16 Absolute32 Absolute64 NegateF32 NegateF64 AbsoluteF32 AbsoluteF64
        SqrtF32 SqrtF64 ReciprocalF32 ReciprocalF64
        S32ToF32 U32ToF32 S64ToF32 U64ToF32 S32ToF64 U32ToF64 S64ToF64 U64ToF64
        F32ToS32 F32ToU32 F32ToS64 F32ToU64 F64ToS32 F64ToU32 F64ToS64 F64ToU64 F32ToS16 F32ToU16 F64ToS16 F64ToU16
        F32ToF64 F64ToF32 F16ToF32 F32ToF16 RoundF32 RoundF64 SaturateF32
        CountOnes CountZeros32 CountZeros64 Reverse32 Reverse64 HighestBit;
    Two: Add16 Add32 Add64 Sub16 Sub32 Sub64 Mul16 Mul32 Mul64 MulHighS32 MulHighU32 MulHighS64 MulHighU64
        MulWideS16 MulWideU16 MulWideS32 MulWideU32
        DivS16 DivU16 DivS32 DivU32 DivS64 DivU64 RemS16 RemU16 RemS32 RemU32 RemS64 RemU64
        MinS16 MinU16 MinS32 MinU32 MinS64 MinU64 MaxS16 MaxU16 MaxS32 MaxU32 MaxS64 MaxU64
        And Or Xor Shl16 Shl32 Shl64 ShrU16 ShrU32 ShrU64 ShrS16 ShrS32 ShrS64
        AddF32 SubF32 MulF32 DivF32 AddF64 SubF64 MulF64 DivF64 MinF32 MaxF32 MinF64 MaxF64 CopySignF32 CopySignF64
        AddF32Zero SubF32Zero MulF32Zero
        CompareS16 CompareU16 CompareS32 CompareU32 CompareS64 CompareU64 CompareF32 CompareF64
        Pack16 Pack32;
    Three: MadWideS16 MadWideU16 MadWideS32 MadWideU32 Mad16 Mad32 Mad64 MadHighS32 MadHighU32 MadHighS64 MadHighU64
        FmaF32 FmaF64 FmaF32Zero Select Permute Logic3 FunnelLeftWrap FunnelLeftClamp FunnelRightWrap FunnelRightClamp
        ExtractS32 ExtractU32 ExtractS64 ExtractU64;
    Four: Insert32 Insert64;
    Load: LoadParam LoadGlobal LoadShared LoadLocal LoadGeneric;
    Store: StoreGlobal StoreShared StoreLocal StoreGeneric;
    Atomic: AtomicGlobal AtomicShared AtomicGeneric;
    Jump: Jump;
    JumpBy: JumpIf JumpUnless CheckWritten;
    JumpTable: JumpTable;
    Alone: Barrier Return Trap Fence;
}

/// What a load or store moves: the `sub` of its instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(pub u8);

impl Access {
    /// Elements of 1, 2, 4 or 8 bytes, 1, 2 or 4 of them; `signed` ones are sign-extended to 64 bits and then cut by the register's width.
    pub fn new(element: u32, count: u32, signed: bool, strong: bool) -> Access {
        Access(
            (element.trailing_zeros() | count.trailing_zeros() << 2 | u32::from(signed) << 4 | u32::from(strong) << 5)
                as u8,
        )
    }

    pub fn element(self) -> u32 {
        1 << (self.0 & 3)
    }

    pub fn count(self) -> u32 {
        1 << (self.0 >> 2 & 3)
    }

    pub fn bytes(self) -> u32 {
        self.element() * self.count()
    }

    pub fn signed(self) -> bool {
        self.0 & 16 != 0
    }

    /// Volatile and relaxed loads, which may race with atomics.
    pub fn strong(self) -> bool {
        self.0 & 32 != 0
    }
}

/// What an atomic does: the low bits of its `sub`; bit 7 is set for 64-bit values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Atomic {
    CompareAndSwap,
    Exchange,
    Add,
    And,
    Or,
    Xor,
    MinS,
    MinU,
    MaxS,
    MaxU,
}

/// Relations of two values: a comparison's `sub` is the set of those it accepts.
pub mod relation {
    pub const LESS: u8 = 1;
    pub const EQUAL: u8 = 2;
    pub const GREATER: u8 = 4;
    pub const UNORDERED: u8 = 8;
}

/// Directions of rounding, the `sub` of conversions.
pub mod rounding {
    pub const NEAREST: u8 = 0;
    pub const ZERO: u8 = 1;
    pub const DOWN: u8 = 2;
    pub const UP: u8 = 3;
}

#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Inst {
    pub op: Op,
    pub sub: u8,
    pub s: [u16; 5],
    pub imm: i32,
}

/// An instruction whose operands are virtual registers: what lowering makes and allocation takes.
#[derive(Clone, Copy, Debug)]
pub struct Virtual {
    pub op: Op,
    pub sub: u8,
    pub s: [u32; 5],
    pub imm: i32,
}

impl Virtual {
    /// The fields that are read.
    pub fn reads(&self) -> &'static [usize] {
        match self.op.shape() {
            Shape::One | Shape::Load | Shape::JumpBy | Shape::JumpTable => &[1],
            Shape::Two => &[1, 2],
            Shape::Three => &[1, 2, 3],
            Shape::Four => &[1, 2, 3, 4],
            Shape::Store => match Access(self.sub).count() {
                1 => &[0, 1],
                2 => &[0, 1, 2],
                _ => &[0, 1, 2, 3, 4],
            },
            Shape::Atomic => {
                if self.sub & 15 == Atomic::CompareAndSwap as u8 {
                    &[1, 2, 3]
                } else {
                    &[1, 2]
                }
            }
            Shape::Jump | Shape::Alone => &[],
        }
    }

    /// The fields that are written.
    pub fn writes(&self) -> &'static [usize] {
        match self.op.shape() {
            Shape::One | Shape::Two | Shape::Three | Shape::Four | Shape::Atomic => &[0],
            Shape::Load => match Access(self.sub).count() {
                1 => &[0],
                2 => &[0, 2],
                _ => &[0, 2, 3, 4],
            },
            _ => &[],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// %tid, %ntid, %ctaid, %nctaid with its axis.
    Thread(u8),
    Threads(u8),
    Block(u8),
    Blocks(u8),
    Lane,
    WarpSize,
}

/// One entry, ready to run.
#[derive(Clone, Debug)]
pub struct Code {
    pub name: String,
    pub instructions: Vec<Inst>,
    /// The PTX line of each instruction.
    pub lines: Vec<u32>,
    /// Places in a frame.
    pub places: usize,
    pub constants: Vec<(u16, u64)>,
    pub specials: Vec<(u16, Special)>,
    pub tables: Vec<Vec<u32>>,
    /// Offset and size of each parameter.
    pub params: Vec<(u32, u32)>,
    pub param_bytes: u32,
    pub shared_bytes: u32,
    /// Where memory sized by the launch begins, if the entry uses it.
    pub dynamic_shared: Option<u32>,
    pub local_bytes: u32,
    pub max_threads: Option<[u32; 3]>,
    /// Names of registers by the places of `CheckWritten`.
    pub checked: Vec<String>,
}
