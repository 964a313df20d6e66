//! The notation of scripts and flags in Bitcoin Core's test files (`ParseScript` of `core_read.cpp`,
//! `ParseScriptFlags` of `transaction_tests.cpp`).

use super::Failure;
use crate::chain::deployments::ScriptFlags;
use bitcoin::ScriptBuf;
use bitcoin::hex::FromHex;
use bitcoin::script::{Builder, PushBytesBuf};

/// Names of the opcodes from 0x61 on, in order.
const NAMES: &str = "NOP VER IF NOTIF VERIF VERNOTIF ELSE ENDIF VERIFY RETURN TOALTSTACK FROMALTSTACK 2DROP \
    2DUP 3DUP 2OVER 2ROT 2SWAP IFDUP DEPTH DROP DUP NIP OVER PICK ROLL ROT SWAP TUCK CAT SUBSTR LEFT RIGHT \
    SIZE INVERT AND OR XOR EQUAL EQUALVERIFY RESERVED1 RESERVED2 1ADD 1SUB 2MUL 2DIV NEGATE ABS NOT \
    0NOTEQUAL ADD SUB MUL DIV MOD LSHIFT RSHIFT BOOLAND BOOLOR NUMEQUAL NUMEQUALVERIFY NUMNOTEQUAL LESSTHAN \
    GREATERTHAN LESSTHANOREQUAL GREATERTHANOREQUAL MIN MAX WITHIN RIPEMD160 SHA1 SHA256 HASH160 HASH256 \
    CODESEPARATOR CHECKSIG CHECKSIGVERIFY CHECKMULTISIG CHECKMULTISIGVERIFY NOP1 CHECKLOCKTIMEVERIFY \
    CHECKSEQUENCEVERIFY NOP4 NOP5 NOP6 NOP7 NOP8 NOP9 NOP10 CHECKSIGADD";

/// A script: numbers, raw hex, quoted strings, names.
pub(super) fn script(notation: &str) -> Result<ScriptBuf, Failure> {
    let unknown = |word: &str| Failure::Vectors(format!("{word:?} in a script"));
    let mut bytes = Vec::new();
    for word in notation.split_whitespace() {
        if let Ok(number) = word.parse::<i64>() {
            bytes.extend(Builder::new().push_int(number).into_bytes());
        } else if let Some(digits) = word.strip_prefix("0x") {
            bytes.extend(hex(digits)?);
        } else if let Some(quoted) = word.strip_prefix('\'') {
            let data = quoted.strip_suffix('\'').ok_or_else(|| unknown(word))?.as_bytes().to_vec();
            let data = PushBytesBuf::try_from(data).map_err(|_| unknown(word))?;
            bytes.extend(Builder::new().push_slice(data).into_bytes());
        } else {
            bytes.push(opcode(word.strip_prefix("OP_").unwrap_or(word)).ok_or_else(|| unknown(word))?);
        }
    }
    Ok(ScriptBuf::from_bytes(bytes))
}

fn opcode(name: &str) -> Option<u8> {
    if name == "RESERVED" {
        return Some(0x50);
    }
    let at = NAMES.split_whitespace().position(|known| known == name)?;
    u8::try_from(at).ok()?.checked_add(0x61)
}

/// Bytes in hexadecimal digits.
pub(super) fn hex(digits: &str) -> Result<Vec<u8>, Failure> {
    Vec::from_hex(digits).map_err(|error| Failure::Vectors(format!("{digits:?}: {error}")))
}

fn flag(name: &str) -> Result<Option<ScriptFlags>, Failure> {
    Ok(Some(match name {
        "P2SH" => ScriptFlags::P2SH,
        "DERSIG" => ScriptFlags::DERSIG,
        "NULLDUMMY" => ScriptFlags::NULLDUMMY,
        "CHECKLOCKTIMEVERIFY" => ScriptFlags::CHECKLOCKTIMEVERIFY,
        "CHECKSEQUENCEVERIFY" => ScriptFlags::CHECKSEQUENCEVERIFY,
        "WITNESS" => ScriptFlags::WITNESS,
        "TAPROOT" => ScriptFlags::TAPROOT,
        // Rules of relay, which no block has to follow.
        "STRICTENC"
        | "LOW_S"
        | "SIGPUSHONLY"
        | "MINIMALDATA"
        | "CLEANSTACK"
        | "MINIMALIF"
        | "NULLFAIL"
        | "CONST_SCRIPTCODE"
        | "WITNESS_PUBKEYTYPE"
        | "DISCOURAGE_UPGRADABLE_NOPS"
        | "DISCOURAGE_UPGRADABLE_WITNESS_PROGRAM"
        | "DISCOURAGE_UPGRADABLE_TAPROOT_VERSION"
        | "DISCOURAGE_UPGRADABLE_PUBKEYTYPE"
        | "DISCOURAGE_OP_SUCCESS" => return Ok(None),
        unknown => return Err(Failure::Vectors(format!("flag {unknown:?}"))),
    }))
}

/// The flags of consensus in a list, and whether it names others.
pub(super) fn flags(list: &str) -> Result<(ScriptFlags, bool), Failure> {
    let mut names = list.split(',').filter(|name| !name.is_empty() && *name != "NONE");
    names.try_fold((ScriptFlags::NONE, false), |(flags, others), name| {
        Ok(match flag(name)? {
            Some(flag) => (flags.with(flag), others),
            None => (flags, true),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_and_flags_are_read_and_what_is_neither_is_refused() {
        let read = |notation| script(notation).unwrap().into_bytes();
        assert_eq!(read("1 -1 17 'ab' 0x6a DUP OP_CHECKSIGADD RESERVED NOP10"), {
            [0x51, 0x4f, 0x01, 17, 2, b'a', b'b', 0x6a, 0x76, 0xba, 0x50, 0xb9]
        });
        for wrong in ["0xzz", "'open", "NOSUCH", "OP_"] {
            assert!(matches!(script(wrong), Err(Failure::Vectors(_))), "{wrong}");
        }
        assert_eq!(flags("P2SH,LOW_S").unwrap(), (ScriptFlags::P2SH, true));
        assert_eq!(flags("NONE").unwrap(), (ScriptFlags::NONE, false));
        assert!(flags("P2SH,NOSUCH").is_err());
    }
}
