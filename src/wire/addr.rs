//! Addresses of BIP155 and their legacy forms.
