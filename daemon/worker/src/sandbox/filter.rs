//! From the table of system calls to a program for the kernel's filter (classic BPF over
//! `struct seccomp_data`, as in `Documentation/userspace-api/seccomp_filter.rst`).
//!
//! The program compares one number after another: kernels since 5.11 run it once per number and
//! remember what is always allowed, and before that a hundred comparisons cost less than the call.

use super::calls::{Architecture, Condition, Row, Value, Verdict};
use nix::libc;

/// One instruction, as the kernel takes it.
pub type Instruction = libc::sock_filter;

/// The kernel takes no longer programs (`BPF_MAXINSNS`).
pub const INSTRUCTIONS_MAX: usize = 4_096;

// Offsets in `struct seccomp_data`; every architecture with a table is little-endian.
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;
const ARGUMENT_BYTES: u32 = 8;
const HALF_BYTES: u32 = 4;

const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const JUMP_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const JUMP_AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

/// Why a table is no program.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The row has more conditions than a jump can skip.
    #[error("the rule of {name} is too long")]
    RowTooLong {
        /// The row.
        name: &'static str,
    },
    /// There are too many rows.
    #[error("the program has {instructions} instructions, more than {INSTRUCTIONS_MAX}")]
    TooLong {
        /// What it would have.
        instructions: usize,
    },
}

/// The program of these rows, for the process `pid`.
///
/// # Errors
/// When the table is too long for the kernel.
pub fn compile<'a>(
    architecture: Architecture,
    rows: impl IntoIterator<Item = &'a Row>,
    pid: u32,
) -> Result<Vec<Instruction>, CompileError> {
    let mut program = vec![
        load(ARCHITECTURE_AT),
        jump(JUMP_EQUAL, architecture.audit, 1, 0),
        end(libc::SECCOMP_RET_KILL_PROCESS),
        load(NUMBER_AT),
    ];
    if let Some(numbers_end) = architecture.numbers_end {
        program.push(jump(JUMP_AT_LEAST, numbers_end, 0, 1));
        program.push(fail(libc::ENOSYS));
    }
    for row in rows {
        let rule = rule(&row.verdict, pid);
        let skip = u8::try_from(rule.len());
        let skip = skip.map_err(|_| CompileError::RowTooLong { name: row.name })?;
        program.push(jump(JUMP_EQUAL, row.number, 0, skip));
        program.extend(rule);
    }
    program.push(fail(libc::ENOSYS));
    match program.len() {
        0..=INSTRUCTIONS_MAX => Ok(program),
        instructions => Err(CompileError::TooLong { instructions }),
    }
}

/// Instructions that end with an answer.
fn rule(verdict: &Verdict, pid: u32) -> Vec<Instruction> {
    match verdict {
        Verdict::Allow => vec![end(libc::SECCOMP_RET_ALLOW)],
        Verdict::Refuse(errno) => vec![fail(*errno)],
        // An error of 0 is none.
        Verdict::Pretend => vec![fail(0)],
        Verdict::AllowIf(conditions, errno) => {
            let conditions = conditions.iter().flat_map(|one| allow_if(one, pid));
            conditions.chain([fail(*errno)]).collect()
        }
    }
}

/// Allows the call when the condition holds, and goes on otherwise.
fn allow_if(condition: &Condition, pid: u32) -> Vec<Instruction> {
    let wanted = match condition.value {
        Value::Is(value) => value,
        Value::OwnProcess => u64::from(pid),
    };
    let at = ARGUMENTS_AT + condition.argument * ARGUMENT_BYTES;
    let low = compare(at, condition.mask as u32, wanted as u32, 1);
    let (mask, wanted) = ((condition.mask >> 32) as u32, (wanted >> 32) as u32);
    // The low half's comparison and the answer behind it are skipped together.
    let high = compare(at + HALF_BYTES, mask, wanted, low.len() as u8 + 1);
    let allow = [end(libc::SECCOMP_RET_ALLOW)];
    high.into_iter().chain(low).chain(allow).collect()
}

/// Skips so many instructions unless 32 bits of an argument, masked, are as wanted.
fn compare(at: u32, mask: u32, wanted: u32, skip: u8) -> Vec<Instruction> {
    match mask {
        0 => Vec::new(),
        u32::MAX => vec![load(at), jump(JUMP_EQUAL, wanted, 0, skip)],
        mask => {
            let and = instruction(AND, mask, 0, 0);
            vec![load(at), and, jump(JUMP_EQUAL, wanted, 0, skip)]
        }
    }
}

const fn load(at: u32) -> Instruction {
    instruction(LOAD, at, 0, 0)
}

const fn jump(code: u32, value: u32, when_true: u8, when_false: u8) -> Instruction {
    instruction(code, value, when_true, when_false)
}

const fn end(action: u32) -> Instruction {
    instruction(RETURN, action, 0, 0)
}

const fn fail(errno: i32) -> Instruction {
    end(libc::SECCOMP_RET_ERRNO | (errno.cast_unsigned() & libc::SECCOMP_RET_DATA))
}

const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

#[cfg(test)]
mod tests {
    use super::super::calls::{ARCHITECTURE, rows_for};
    use super::*;
    use std::collections::BTreeSet;

    const PID: u32 = 4_321;

    /// What the kernel would answer: its interpreter, as far as [`compile`] needs one.
    fn answer(program: &[Instruction], audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_le_bytes());
        data.extend(audit.to_le_bytes());
        data.extend(0u64.to_le_bytes());
        for argument in arguments {
            data.extend(argument.to_le_bytes());
        }
        let (mut at, mut accumulator) = (0, 0u32);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let branch = |holds: bool| usize::from(if holds { jt } else { jf });
            match u32::from(code) {
                LOAD => {
                    let word = &data[k as usize..k as usize + 4];
                    accumulator = u32::from_le_bytes(word.try_into().expect("four bytes"));
                }
                AND => accumulator &= k,
                JUMP_EQUAL => at += branch(accumulator == k),
                JUMP_AT_LEAST => at += branch(accumulator >= k),
                RETURN => return k,
                code => panic!("instruction {code:#x} is not in use"),
            }
        }
    }

    fn program(drivers: bool) -> (Vec<Instruction>, u32) {
        let architecture = ARCHITECTURE.expect("tests run where there is a table");
        let program = compile(architecture, rows_for(drivers), PID).expect("it fits");
        (program, architecture.audit)
    }

    fn errno(errno: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()
    }

    #[test]
    fn every_row_is_answered_as_it_says() {
        for drivers in [false, true] {
            let (program, audit) = program(drivers);
            let mut seen = BTreeSet::new();
            for row in rows_for(drivers).filter(|row| seen.insert(row.number)) {
                // No condition holds for these arguments.
                let given = answer(&program, audit, row.number, [u64::MAX; 6]);
                let wanted = match row.verdict {
                    Verdict::Allow => libc::SECCOMP_RET_ALLOW,
                    Verdict::Pretend => errno(0),
                    Verdict::Refuse(refusal) | Verdict::AllowIf(_, refusal) => errno(refusal),
                };
                assert_eq!(given, wanted, "{}", row.name);
                let Verdict::AllowIf(conditions, refusal) = row.verdict else {
                    continue;
                };
                for condition in conditions {
                    let value = match condition.value {
                        Value::Is(value) => value,
                        Value::OwnProcess => PID.into(),
                    };
                    let mut arguments = [u64::MAX; 6];
                    let argument = &mut arguments[condition.argument as usize];
                    // What the mask leaves out does not count.
                    *argument = value | !condition.mask;
                    let given = answer(&program, audit, row.number, arguments);
                    assert_eq!(given, libc::SECCOMP_RET_ALLOW, "{} {condition:?}", row.name);
                    // Every bit of it does.
                    for bit in (0..64).filter(|bit| condition.mask >> bit & 1 == 1) {
                        let mut arguments = arguments;
                        arguments[condition.argument as usize] ^= 1 << bit;
                        let other = arguments[condition.argument as usize];
                        let holds = |one: &Condition| matches!(one.value, Value::Is(value) if other & one.mask == value);
                        if !conditions.iter().any(holds) {
                            let given = answer(&program, audit, row.number, arguments);
                            assert_eq!(given, errno(refusal), "{} bit {bit}", row.name);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_not_in_the_table_is_no_call() {
        let (program, audit) = program(true);
        let listed: BTreeSet<u32> = rows_for(true).map(|row| row.number).collect();
        let unlisted = (0..1_024).filter(|number| !listed.contains(number));
        for number in unlisted.chain([0x4000_0000, 0x4000_0001, u32::MAX]) {
            assert_eq!(answer(&program, audit, number, [0; 6]), errno(libc::ENOSYS));
        }
    }

    #[test]
    fn numbers_of_another_architecture_end_the_process() {
        let (program, audit) = program(true);
        for other in [0x4000_0003, 0x4000_0028, 0xc000_003e, 0xc000_00b7] {
            if other != audit {
                let given = answer(&program, other, 0, [0; 6]);
                assert_eq!(given, libc::SECCOMP_RET_KILL_PROCESS);
            }
        }
    }

    #[test]
    fn each_call_is_named_once_per_table_and_has_a_reason() {
        let mut seen = BTreeSet::new();
        for row in rows_for(false) {
            assert!(seen.insert(row.number), "{} is there twice", row.name);
            assert!(!row.why.is_empty() && row.name.starts_with("SYS_"));
        }
    }

    #[test]
    fn only_a_driver_may_be_asked_for_anything() {
        let ioctl = libc::SYS_ioctl as u32;
        let (plain, audit) = program(false);
        let asked = [3, 0xdead_beef, 0, 0, 0, 0];
        assert_eq!(answer(&plain, audit, ioctl, asked), errno(libc::ENOTTY));
        let (driver, audit) = program(true);
        assert_eq!(
            answer(&driver, audit, ioctl, asked),
            libc::SECCOMP_RET_ALLOW
        );
    }

    #[test]
    fn a_rule_that_no_jump_can_skip_is_refused() {
        static MANY: [Condition; 120] = [Condition {
            argument: 0,
            mask: u64::MAX,
            value: Value::OwnProcess,
        }; 120];
        let row = Row {
            name: "SYS_none",
            number: 0,
            why: "",
            verdict: Verdict::AllowIf(&MANY, 1),
        };
        let architecture = ARCHITECTURE.expect("tests run where there is a table");
        let refused = compile(architecture, [&row], PID).map(|program| program.len());
        assert_eq!(refused, Err(CompileError::RowTooLong { name: "SYS_none" }));
    }
}
