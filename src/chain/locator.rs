//! Block locators: which heights a `getheaders` names.
