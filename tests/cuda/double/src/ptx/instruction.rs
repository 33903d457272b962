//! The decoded form: sixteen bytes an instruction, operands as places in a thread's frame.
//!
//! A frame holds registers, constants and special registers of a group of threads. A place is 32 bits for each thread of the group;
//! wide values take two places in a row, from an even one. Values of less than 32 bits are kept zero-extended, predicates as 0 or 1.

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
    ($($shape:ident $widths:literal: $($name:ident)*;)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Op { $($($name,)*)* }

        impl Op {
            pub fn shape(self) -> Shape {
                match self { $($(Op::$name => Shape::$shape,)*)* }
            }

            /// 3 for each field of 32 bits, 6 for each one of 64.
            fn widths(self) -> &'static [u8] {
                match self { $($(Op::$name => $widths,)*)* }
            }
        }
    };
}

operations! {
    One b"33": Move32 SignExtend32 ZeroExtend32 Not16 Not32 NotPredicate Negate16 Negate32 Absolute16 Absolute32
        NegateF32 AbsoluteF32 SqrtF32 SqrtF32Zero ReciprocalF32 S32ToF32 U32ToF32 F32ToS32 F32ToU32 F32ToS16 F32ToU16
        F16ToF32 F32ToF16 RoundF32 SaturateF32 CountOnes32 CountZeros32 Reverse32 HighestBit32;
    One b"66": Move64 SignExtend64 ZeroExtend64 Not64 Negate64 Absolute64 NegateF64 AbsoluteF64 SqrtF64 ReciprocalF64
        S64ToF64 U64ToF64 F64ToS64 F64ToU64 RoundF64 Reverse64;
    One b"63": SignExtend32To64 ZeroExtend32To64 S32ToF64 U32ToF64 F32ToS64 F32ToU64 F32ToF64;
    One b"36": SignExtend64To32 ZeroExtend64To32 High32 S64ToF32 U64ToF32 F64ToS32 F64ToU32 F64ToS16 F64ToU16 F64ToF32
        CountOnes64 CountZeros64 HighestBit64;
    Two b"333": Add16 Add32 Sub16 Sub32 Mul16 Mul32 MulHighS32 MulHighU32 MulWideS16 MulWideU16
        DivS16 DivU16 DivS32 DivU32 RemS16 RemU16 RemS32 RemU32
        MinS16 MinU16 MinS32 MinU32 MaxS16 MaxU16 MaxS32 MaxU32
        And32 Or32 Xor32 Shl16 Shl32 ShrU16 ShrU32 ShrS16 ShrS32
        AddF32 SubF32 MulF32 DivF32 MinF32 MaxF32 CopySignF32 AddF32Zero SubF32Zero MulF32Zero
        CompareS16 CompareU16 CompareS32 CompareU32 CompareF32 Pack16;
    Two b"666": Add64 Sub64 Mul64 MulHighS64 MulHighU64 DivS64 DivU64 RemS64 RemU64 MinS64 MinU64 MaxS64 MaxU64
        And64 Or64 Xor64 AddF64 SubF64 MulF64 DivF64 MinF64 MaxF64 CopySignF64
        AddF64Zero SubF64Zero MulF64Zero DivF64Zero;
    Two b"663": Shl64 ShrU64 ShrS64;
    Two b"633": MulWideS32 MulWideU32 Pack32;
    Two b"366": CompareS64 CompareU64 CompareF64;
    Three b"3333": MadWideS16 MadWideU16 Mad16 Mad32 MadHighS32 MadHighU32 FmaF32 FmaF32Zero Select32 Permute Logic3
        FunnelLeftWrap FunnelLeftClamp FunnelRightWrap FunnelRightClamp ExtractS32 ExtractU32;
    Three b"6666": Mad64 MadHighS64 MadHighU64 FmaF64;
    Three b"6336": MadWideS32 MadWideU32;
    Three b"6663": Select64;
    Three b"6633": ExtractS64 ExtractU64;
    Four b"33333": Insert32;
    Four b"66633": Insert64;
    Load b"": LoadParam LoadGlobal LoadShared LoadLocal LoadGeneric LoadParamOnce;
    Store b"": StoreGlobal StoreShared StoreLocal StoreGeneric;
    Atomic b"": AtomicGlobal AtomicShared AtomicGeneric;
    Jump b"": Jump;
    JumpBy b"33": JumpIf JumpUnless CheckWritten;
    JumpTable b"33": JumpTable;
    Alone b"": Barrier Return Trap Fence;
}

/// What a load or store moves: the `sub` of its instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(pub u8);

impl Access {
    /// Elements of 1, 2, 4 or 8 bytes, 1, 2 or 4 of them; `signed` ones are sign-extended.
    pub const fn new(element: u32, count: u32, signed: bool, strong: bool) -> Access {
        let flags = (signed as u32) << 4 | (strong as u32) << 5;
        Access((element.trailing_zeros() | count.trailing_zeros() << 2 | flags) as u8)
    }

    /// With values, and an address, in registers of 64 bits.
    pub const fn in_registers(self, wide_values: bool, wide_address: bool) -> Access {
        Access(self.0 | (wide_values as u8) << 6 | (wide_address as u8) << 7)
    }

    #[inline(always)]
    pub fn wide_values(self) -> bool {
        self.0 & 64 != 0
    }

    #[inline(always)]
    pub fn wide_address(self) -> bool {
        self.0 & 128 != 0
    }

    #[inline(always)]
    pub fn element(self) -> u32 {
        1 << (self.0 & 3)
    }

    #[inline(always)]
    pub fn count(self) -> u32 {
        1 << (self.0 >> 2 & 3)
    }

    #[inline(always)]
    pub fn bytes(self) -> u32 {
        self.element() * self.count()
    }

    #[inline(always)]
    pub fn signed(self) -> bool {
        self.0 & 16 != 0
    }

    /// Volatile and relaxed loads, which may race with atomics.
    #[inline(always)]
    pub fn strong(self) -> bool {
        self.0 & 32 != 0
    }
}

/// What an atomic does: the low bits of its `sub`; bit 6 is set for 64-bit values, bit 7 for 64-bit addresses.
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
    /// Whether a field that is read or written is 64 bits wide.
    pub fn is_wide(&self, field: usize) -> bool {
        match self.op.shape() {
            // An atomic's `sub` has these two bits in the same places.
            Shape::Load | Shape::Store | Shape::Atomic if field == 1 => Access(self.sub).wide_address(),
            Shape::Load | Shape::Store | Shape::Atomic => Access(self.sub).wide_values(),
            _ => self.op.widths().get(field) == Some(&b'6'),
        }
    }

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
    /// Place, value and whether it is wide.
    pub constants: Vec<(u16, u64, bool)>,
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
